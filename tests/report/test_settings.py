"The rule as json, and settings as tables."
import json

from fastmatch.report.settings import settings_html
from tests.matcher.paired import matcher_and_new
from tests.report.made import made_run
from tests.report.reader import Reader


def test_a_pair_model_is_told_in_a_line():
    matcher, *_ = matcher_and_new()
    reader = Reader(settings_html(matcher.rule, None))
    shown = json.loads(''.join(reader.texts('pre')))
    assert len(json.dumps(shown)) < 1500
    assert shown['steps'][1]['params'] == repr(matcher.rule.steps[1].pair_model)


def test_the_settings(page_html):
    reader = Reader(page_html)
    assert json.loads(''.join(reader.texts('pre'))) == made_run().rule.to_dict()
    assert {'listings', 'skipped', 'seconds', 'run'} <= set(reader.texts('h3'))
    assert '<i>' in reader.texts('td') and 'empty file' in reader.texts('td')
