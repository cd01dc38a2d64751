"The page templates, and the filters that they and the sections use: numbers, plurals and lists as words."
from functools import cache

from markupsafe import Markup

# shown beside the word: some readers can't tell the colors apart
MARKS = {'right': '✓', 'wrong': '✗', 'missed': '○'}


def render(
    template: str,  # File in `templates/`, e.g. 'table.html'
    **values,  # What the template reads; a name that it reads and nobody gives raises `jinja2.UndefinedError`
) -> Markup:
    "A filled-in template. Values are escaped, so that a title with html in it is shown as it was typed."
    return Markup(_environment().get_template(template).render(**values).strip())


def page(
    title: str,
    top: Markup,  # Html above the first section
    sections: list[tuple[str, Markup]],  # (heading, html); those without html are left out
) -> str:
    "A whole page. Plain text, not `Markup`, whose methods would escape what they are given."
    return str(render('page.html', title=title, top=top, sections=sections)) + '\n'


@cache
def _environment():
    from jinja2 import Environment, PackageLoader, StrictUndefined
    environment = Environment(
        loader=PackageLoader('fastmatch.report'), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=_writable)
    environment.filters.update(number=number, plural=plural, listed=listed, percent=percent)
    environment.globals['MARKS'] = MARKS
    return environment


def _writable(value):
    "Text that can be written as UTF-8: half an emoji, as a title shortened elsewhere may hold, can't."
    return value if isinstance(value, Markup) else str(value).encode('utf-8', 'replace').decode('utf-8')


def plural(
    count: int,
    noun: str,  # For one
    several: str | None = None,  # For any other count; default the noun with an 's'
) -> str:
    "'1 group', '2,100 groups'."
    return f'{count:,} {noun if count == 1 else several or noun + "s"}'


def listed(
    names,  # One or more
) -> str:
    "'a', 'a and b', 'a, b and c'."
    *earlier_names, last_name = names
    return f'{", ".join(earlier_names)} and {last_name}' if earlier_names else last_name


def number(
    value,  # None or NaN: there is none
    digits: int = 3,  # Behind the decimal point
) -> str:
    "A number with so many digits, or a dash."
    return '–' if value is None or value != value else f'{value:.{digits}f}'


def percent(
    share,  # From 0 to 1, or None: there is none
) -> str:
    "A share as a whole percentage, '72%', or 'none'."
    return 'none' if share is None else f'{share:.0%}'
