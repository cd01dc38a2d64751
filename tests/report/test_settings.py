"The rule as json, and settings as tables."
import json

from tests.report.made import made_run
from tests.report.reader import Reader


def test_the_settings(page_html):
    reader = Reader(page_html)
    assert json.loads(''.join(reader.texts('pre'))) == made_run().rule.to_dict()
    assert {'listings', 'skipped', 'seconds', 'run'} <= set(reader.texts('h3'))
    assert '<i>' in reader.texts('td') and 'empty file' in reader.texts('td')
