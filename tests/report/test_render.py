"Templates: what they are given is escaped and can be written, and what is missing is an error."
import jinja2
import pytest

from fastmatch.report.render import listed, number, percent, plural, render


def test_values_are_escaped_and_can_be_written():
    text = render('study_top.html', lines=['<b>&', 'cut \ud83d'])
    assert '<p>&lt;b&gt;&amp;</p>' in text and '<p>cut ?</p>' in text and text.encode()


def test_a_name_that_nobody_gives_is_an_error():
    with pytest.raises(jinja2.UndefinedError, match='lines'): render('study_top.html')


def test_filters():
    assert [plural(1, 'match', 'matches'), plural(2100, 'group')] == ['1 match', '2,100 groups']
    assert [listed(['a']), listed('ab'), listed('abc')] == ['a', 'a and b', 'a, b and c']
    assert [number(None), number(float('nan')), number(0.12345), number(2, 1)] == ['–', '–', '0.123', '2.0']
    assert [percent(None), percent(.716)] == ['none', '72%']
