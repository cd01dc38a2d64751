"Reads a report's page back: its elements and text, the mistakes it shows, the points of a drawn line."
import re
from html.parser import HTMLParser

import numpy as np

SECTIONS = ['What each part is worth', 'Training', 'Scores and the threshold', 'Matched groups',
            'Worst mistakes', 'Settings']
VOID = {'meta', 'img', 'br'}
# every element that a page may hold
ELEMENTS = '''html head meta title style body main h1 h2 h3 p b i small bdi br nav a section header article
              div span figure figcaption svg path text circle
              table thead tbody tr th td img details summary pre'''.split()


class Reader(HTMLParser):
    "Every element as (tag, attributes), the text by element, and whether what is opened is closed again."
    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.text = []
        self.by_id = {}
        self._open = []
        self.feed(html)
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
            name = attributes.get('id')
            self.by_id[name] = self.by_id.get(name, '') + data

    def of(self, tag): return [attributes for name, attributes in self.tags if name == tag]
    def words(self, tag): return [text for name, text in self.text if name == tag]


def mistakes_of(html):
    "The mistakes shown: (kind, ids, scores, whether no modality had it as candidate)."
    shown = []
    for kind, body in re.findall(r'<article class="pair is-(\w+)">(.+?)</article>', html, re.S):
        scores = dict(re.findall(r'<td>(\w+)</td><td>(-?[\d.]+)</td>', body))
        ids = tuple(re.findall(r'class="id">([^<]+)<', body))
        shown.append((kind, ids, {name: float(score) for name, score in scores.items()},
                      'No modality had it' in body))
    return shown


def table_of(html):
    "The rows of the table of what each part is worth, as cells."
    section = html[html.index('id="s1"'):html.index('id="s2"')]
    rows = [re.findall(r'<td>(.*?)</td>', row) for row in re.findall(r'<tr[^>]*>(.*?)</tr>', section)]
    return [row for row in rows if row]


def charts_of(html): return re.findall(r'<svg class="chart".*?</svg>', html, re.S)


def line_of(svg, style='s0'):
    "The points of a drawn line, (n, 2)."
    return points(re.search(rf'<path class="line {style}" d="([^"]+)"', svg)[1])


def points(path): return np.array([point.split(' ') for point in path.removeprefix('M').split('L')], float)
