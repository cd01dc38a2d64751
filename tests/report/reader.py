"Reads a report's page back: its elements and text, the mistakes it shows, the points of a drawn line."
import re
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np

SECTIONS = ['What each part is worth', 'The rule', 'Training', 'Scores and the threshold', 'Matched groups',
            'Worst mistakes', 'Settings']
VOID = {'meta', 'img', 'br'}
# every element that a page may hold
ELEMENTS = '''html head meta title style body main h1 h2 h3 p b i small bdi br nav a section header article
              div span figure figcaption svg path text circle
              table thead tbody tr th td img details summary pre ol li'''.split()


class Reader(HTMLParser):
    "Every element as (tag, attributes), the text by element, and whether what is opened is closed again."
    def __init__(self, page_html):
        super().__init__()
        self.tags = []
        self.text = []
        self.by_id = {}
        self._open = []
        self.feed(page_html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID: self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag): assert self._open.pop()[0] == tag
    def handle_startendtag(self, tag, attrs): self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if any(tag == 'style' for tag, _ in self._open): return
        self.text.append((self._open[-1][0] if self._open else '', data))
        for _, attributes in self._open:
            element_id = attributes.get('id')
            self.by_id[element_id] = self.by_id.get(element_id, '') + data

    def elements(self, tag): return [attributes for found_tag, attributes in self.tags if found_tag == tag]
    def texts(self, tag): return [text for found_tag, text in self.text if found_tag == tag]


class Mistake(NamedTuple):
    "A mistake as the page shows it."
    kind: str  # 'wrong' or 'missed'
    posting_ids: tuple
    scores: dict
    no_candidate: bool  # no modality had it as candidate


def mistakes_of(page_html):
    "The mistakes shown, in their order."
    shown = []
    for kind, article in re.findall(r'<article class="pair is-(\w+)">(.+?)</article>', page_html, re.S):
        scores = dict(re.findall(r'<td>(\w+)</td><td>(-?[\d.]+)</td>', article))
        posting_ids = tuple(re.findall(r'class="id">([^<]+)<', article))
        scores = {score_name: float(score) for score_name, score in scores.items()}
        shown.append(Mistake(kind, posting_ids, scores, 'No modality had it' in article))
    return shown


def table_of(page_html):
    "The rows of the table of what each part is worth, as cells."
    section = page_html[page_html.index('id="s1"'):page_html.index('id="s2"')]
    rows = [re.findall(r'<td>(.*?)</td>', row) for row in re.findall(r'<tr[^>]*>(.*?)</tr>', section)]
    return [row for row in rows if row]


def charts_of(page_html): return re.findall(r'<svg class="chart".*?</svg>', page_html, re.S)


def line_of(chart, style='s0'):
    "The points of a drawn line, (n, 2)."
    return points(re.search(rf'<path class="line {style}" d="([^"]+)"', chart)[1])


def points(drawn_path):
    return np.array([point.split(' ') for point in drawn_path.removeprefix('M').split('L')], float)
