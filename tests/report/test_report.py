"The page: its numbers against independent ones, what sellers may write into it, runs that lack a part, and a real run."
import base64
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from fastmatch.core import InputError, write_atomically
from fastmatch.data.sample import demo_path
from fastmatch.jobs.train import train_and_judge
from fastmatch.match import Embeddings, Rule, alone_heldout, candidates, decide, fuse, paired, row_f1
from fastmatch.report import report_html, write_report
from fastmatch.report.chart import BOTTOM, LEFT, RIGHT, TOP, H, W, chart
from fastmatch.report.figures import headline
from fastmatch.report.pairs import judge_pairs
from fastmatch.report.settings import words
from tests.report.made import HOSTILE, run

SECTIONS = ['What each part is worth', 'Training', 'Scores and the cut', 'Matched groups', 'Worst mistakes', 'Settings']
VOID = {'meta', 'img', 'br'}
OURS = '''html head meta title style body main h1 h2 h3 p b i small bdi br nav a section header article div span
          figure figcaption svg path text circle
          table thead tbody tr th td img details summary pre'''


class Reader(HTMLParser):
    "Every element as (tag, attributes), the text by element, and whether what is opened is closed again."
    def __init__(self, html):
        super().__init__()
        self.tags, self.text, self._open, self.by_id = [], [], [], {}
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID: self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag): assert self._open.pop()[0] == tag
    def handle_startendtag(self, tag, attrs): self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if any(t == 'style' for t, _ in self._open): return
        self.text.append((self._open[-1][0] if self._open else '', data))
        for _, a in self._open: self.by_id[a.get('id')] = self.by_id.get(a.get('id'), '') + data

    def of(self, tag): return [a for t, a in self.tags if t == tag]
    def words(self, tag): return [o for t, o in self.text if t == tag]


@pytest.fixture(scope='module')
def html():
    emb, rule, table, files = run()
    return report_html(emb, rule, {**table, 'untrained_fused': table['title']}, files, losses=np.linspace(9, 2, 1000),
                       monitors={'recall@1': [.4, .5], 'row_f1_max': [.6, .7]},
                       settings={'listings': {'train': 7, 'skipped': [{'id': '<i>', 'row': 3, 'reason': 'empty file'}]}, 'seed': 0,
                                 'seconds': {'train': 1.5}})


@pytest.fixture(scope='module')
def judged():
    emb, rule, *_ = run()
    return judge_pairs(emb.spaces(), rule, emb.groups)


def pairs_of(html):
    "The mistakes shown: (kind, ids, scores, note)."
    res = []
    for kind, body in re.findall(r'<article class="pair is-(\w+)">(.+?)</article>', html, re.S):
        score = dict(re.findall(r'<td>(\w+)</td><td>(-?[\d.]+)</td>', body))
        ids = tuple(re.findall(r'class="id">([^<]+)<', body))
        res.append((kind, ids, {k: float(v) for k, v in score.items()}, 'No modality had it' in body))
    return res


def test_sections_stand_in_order(html):
    page = Reader(html)
    assert page.words('h2') == SECTIONS and page.words('h1') == ['60 listings matched by image, title and tfidf']
    assert [o['href'] for o in page.of('a')] == [f'#{o["id"]}' for o in page.of('section')]
    ids = [a['id'] for _, a in page.tags if 'id' in a]
    assert len(ids) == len(set(ids))


def test_the_headline(html):
    emb, rule, table, _ = run()
    page, y = Reader(html), emb.groups
    sets = [set(o.tolist()) for o in rule.apply(emb.spaces())]
    n = len(y)
    true = {(i, j) for i in range(n) for j in range(i) if y[i] == y[j]}
    named = {(max(i, j), min(i, j)) for i, o in enumerate(sets) for j in o if i != j}
    exact = sum(o == {j for j in range(n) if y[j] == y[i]} for i, o in enumerate(sets))
    assert named - true and true - named
    assert page.by_id['exact'] == f'{exact / n:.0%}'
    assert page.by_id['precision'] == f'{len(named & true) / len(named):.0%}'
    assert page.by_id['recall'] == f'{len(named & true) / len(true):.0%}'
    assert f'{len(named):,} pairs it names' in html and f'{len(true):,} true pairs' in html
    gain = paired(table['fused'], table['title'])
    assert page.by_id['f1'] == f'{table["fused"].row_f1.mean():.3f}' and page.by_id['gain'] == f'{gain.diff:+.3f}'
    assert f'95% interval {gain.low:+.3f} to {gain.high:+.3f}' in html


@pytest.mark.parametrize('a, b, word', [('fused', 'alone', 'training helped.'), ('alone', 'fused', 'training did harm.'),
                                        ('fused', 'fused', 'no difference')])
def test_the_verdict_follows_the_interval(judged, a, b, word):
    rows = {**run()[2], 'alone': alone_heldout(run()[0].groups)}
    assert word in headline({'alone': rows['alone'], 'fused': rows[a], 'untrained_fused': rows[b]}, judged)


def test_the_table(html):
    emb, _, table, _ = run()
    rows = [re.findall(r'<td>(.*?)</td>', o) for o in re.findall(r'<tr[^>]*>(.*?)</tr>', html[html.index('id="s1"'):html.index('id="s2"')])]
    rows = [o for o in rows if o]
    assert [o[0] for o in rows] == ['alone', 'image', 'title', 'tfidf', 'fused', 'untrained_fused']
    sizes = pd.Series(emb.groups).map(pd.Series(emb.groups).value_counts())
    assert rows[0][1] == f'{(2 / (1 + sizes)).mean():.3f}' and rows[0][3:] == ['–', '–']
    for name, *cells in rows[1:-1]:
        o = table[name]
        assert cells == [f'{v:.3f}' for v in (o.row_f1.mean(), o.se, np.nanmean(o.recall_at_1), np.nanmean(o.map_at_r))]


def test_f1_at_the_cut_and_pair_counts(html):
    emb, rule, *_ = run()
    page, y = Reader(html), emb.groups
    assert page.by_id['at-cut'] == f'{row_f1(rule.apply(emb.spaces()), y).mean():.5f}'
    rows = candidates(emb.spaces(), rule.k).ids
    near = {(min(i, j), max(i, j)) for i, o in enumerate(rows.tolist()) for j in o if j >= 0 and i != j}
    true = sum(y[i] == y[j] for i, j in near)
    assert page.by_id['true-pairs'] == f'{true:,}' and page.by_id['false-pairs'] == f'{len(near) - true:,}'


def points(d): return np.array([o.split(' ') for o in d.removeprefix('M').split('L')], float)


def test_the_curve_is_the_row_f1_of_every_cut(html, judged):
    "Read back from the drawing: each point's height is the row F1 of deciding at its score."
    emb, rule, *_ = run()
    svg = re.findall(r'<svg class="chart".*?</svg>', html, re.S)[3]
    xy = points(re.search(r'<path class="line s0" d="([^"]+)"', svg)[1])
    near = judged.pairs.fused[judged.pairs.candidate]
    lo, hi = float(near.min()), float(near.max())
    cuts = lo + (xy[:, 0] - LEFT) / (W - LEFT - RIGHT) * (hi - lo)
    nb = fuse(candidates(emb.spaces(), rule.k), rule.how, rule.weights)
    f1 = np.array([row_f1(decide(nb, o, rule.max_matches), emb.groups).mean() for o in cuts])
    # heights are linear in F1, the best cut's is the highest; a tenth of a unit of x may step over a score
    fit = np.polyfit(xy[:, 1], f1, 1)
    assert fit[0] < 0 and np.median(np.abs(np.polyval(fit, xy[:, 1]) - f1)) < 2e-3 and np.ptp(f1) > .1
    at = float(re.search(r'class="cut" d="M([\d.]+) ', svg)[1])
    assert xy[xy[:, 1].argmin(), 0] == pytest.approx(at, abs=.11)
    assert lo + (at - LEFT) / (W - LEFT - RIGHT) * (hi - lo) == pytest.approx(rule.threshold, abs=2e-3 * (hi - lo))


def test_the_histogram_counts_every_candidate_pair(html, judged):
    p = judged.pairs
    svg = re.findall(r'<svg class="chart".*?</svg>', html, re.S)[2]
    # the grid's lines stand at 1, 10, ...: two of them give the scale
    grid = [float(o) for o in re.findall(r'class="grid" d="M\d+ ([\d.]+)H', svg)]
    for i, true in enumerate((True, False)):
        y = points(re.search(rf'<path class="line s{i}" d="([^"]+)"', svg)[1])[::2, 1]
        counts = 10 ** ((grid[0] - y) / (grid[0] - grid[1]))
        assert np.where(counts < .8, 0, counts).sum() == pytest.approx((p.candidate & (p.true == true)).sum(), rel=.02)


def test_the_mistakes_shown_are_the_worst(html):
    emb, rule, *_ = run()
    at, y = {o: i for i, o in enumerate(emb.ids)}, emb.groups
    spaces, sets = emb.spaces(), list(rule.apply(emb.spaces()))
    shown = pairs_of(html)
    false, missed = ([o for o in shown if o[0] == k] for k in ('wrong', 'missed'))
    assert len(false) == 9 and 0 < len(missed) <= 9
    def score(i, j): return sum(w * float(spaces[k].scores(i, j)) for k, w in rule.weights.items()) / sum(rule.weights.values())
    assert rule.how == 'mean'
    for kind, ids, scores, note in shown:
        i, j = (at[o] for o in ids)
        assert (y[i] == y[j]) == (kind == 'missed') and (j in sets[i] or i in sets[j]) == (kind == 'wrong')
        assert scores['fused'] == pytest.approx(score(i, j), abs=6e-4) and scores['cut'] == pytest.approx(rule.threshold, abs=6e-4)
        for k, o in spaces.items(): assert scores[k] == pytest.approx(float(o.scores(i, j)), abs=6e-4)
        near = any(j in o.search(rule.k).ids[i] or i in o.search(rule.k).ids[j] for o in spaces.values())
        assert note == (not near)
    assert any(o[3] for o in missed)
    for part, sign in ((false, -1), (missed, 1)): assert (np.diff([sign * o[2]['fused'] for o in part]) >= 0).all()
    n = len(y)
    every = [(score(i, j), y[i] == y[j], j in sets[i] or i in sets[j]) for i in range(n) for j in range(i)]
    assert false[0][2]['fused'] == pytest.approx(max(s for s, t, m in every if m and not t), abs=6e-4)
    assert missed[0][2]['fused'] == pytest.approx(min(s for s, t, m in every if t and not m), abs=6e-4)
    assert f'{sum(m and not t for _, t, m in every)} false matches' in html
    assert f'{sum(t and not m for _, t, m in every)} missed matches' in html


def test_marks_say_what_colours_say(html):
    body = html[html.index('class="groups"'):html.index('Worst mistakes</h2>')]
    for kind, mark in (('right', '✓'), ('wrong', '✗'), ('missed', '○')):
        n = len(re.findall(rf'<div class="listing is-{kind}">', body))
        assert n and len(re.findall(rf'<p class="{kind}">{mark} {kind}</p>', body)) == n


def test_titles_stay_text():
    "Every hostile title, id and group is shown as it is, and none becomes an element."
    emb, rule, table, files = run()
    titles, labels = [HOSTILE[i % len(HOSTILE)] for i in range(60)], [f'{o}"><u>' for o in emb.groups]
    other = Embeddings(dict(emb), [f'<q>{i}</q>" onload="x' for i in range(60)], titles, labels)
    page = Reader(report_html(other, Rule('mean', {'image': 1.}, rule.threshold), table, files,
                              settings={'<hr>': {'<em>': '<a href=x>'}, 'x': '<s>', 'skipped': [{'<del>': '<ins>'}], 'names': ['<kbd>']}))
    assert {t for t, _ in page.tags} <= set(OURS.split())
    assert not any(k.startswith('on') for _, a in page.tags for k in a) and all(o['href'].startswith('#s') for o in page.of('a'))
    assert all(o['src'].startswith('data:image/webp;base64,') for o in page.of('img'))
    shown = [o for t, o in page.text if t == 'p']
    assert set(HOSTILE) - set(shown) == set() and any('<hr>' in o for o in page.words('h3'))
    assert all(o['dir'] == 'auto' for o in page.of('p') if o.get('class') == 'title')


def test_half_an_emoji_can_be_written():
    emb, rule, table, _ = run()
    page = report_html(Embeddings(dict(emb), emb.ids, ['cut \ud83d'] * 60, emb.groups), Rule('mean', {'image': 1.}, .5), table)
    assert 'cut ?' in page and page.encode()


def test_nothing_is_loaded(html):
    page = Reader(html)
    assert 'http' not in html.replace('http-equiv', '') and 'url(' not in html and '@import' not in html
    assert {t for t, _ in page.tags}.isdisjoint({'script', 'link', 'base', 'iframe', 'object', 'embed'})
    policy = next(o['content'] for o in page.of('meta') if 'http-equiv' in o)
    assert "default-src 'none'" in policy and 'script-src' not in policy
    assert all(o['src'].startswith('data:image/webp;base64,') and o['alt'] for o in page.of('img')) and page.of('img')
    assert len(html.encode()) < 400_000


def test_each_picture_is_its_listings(html):
    emb, _, _, files = run()
    at = {o: i for i, o in enumerate(emb.ids)}
    found = re.findall(r'<img src="data:image/webp;base64,([^"]+)" alt="Picture of ([^"]+)">', html)
    assert len(found) > 20
    for data, name in set(found):
        with Image.open(io.BytesIO(base64.b64decode(data))) as im:
            assert im.format == 'WEBP' and max(im.size) <= 160
            with Image.open(files[at[name]]) as source:
                white = Image.alpha_composite(Image.new('RGBA', source.size, 'white'), source.convert('RGBA')).convert('RGB')
            got, want = (np.asarray(o.convert('L').resize((8, 8)), float) for o in (im, white))
        assert np.abs(got - want).mean() < 4, name


def test_pictures_come_from_files_images_or_a_function():
    emb, rule, table, files = run()
    large = [Image.open(o).convert('RGB').resize((400, 200)) for o in files]
    def first(*args): return re.search(r'base64,([^"]+)"', report_html(emb, rule, table, *args))[1]
    assert first(files) == first(lambda i: files[i]) == first([str(o) for o in files])
    with Image.open(io.BytesIO(base64.b64decode(first(large)))) as im: assert im.size == (160, 80)


@pytest.mark.parametrize('parts, titles', [(('image',), False), (('title',), True), (('image', 'title'), False)])
def test_runs_without_images_titles_or_training(parts, titles):
    emb, rule, table, files = run(parts, titles)
    images = files if 'image' in parts else None
    page = Reader(report_html(emb, rule, table, images))
    assert page.words('h2') == [o for o in SECTIONS if o != 'Training'] and bool(page.of('img')) == (images is not None)
    assert any(o.get('class') == 'title' for o in page.of('p')) == titles
    assert 'id="gain"' not in report_html(emb, rule, table, images)


def test_a_rule_that_names_nobody_and_one_that_names_all():
    emb, rule, table, _ = run()
    nobody = report_html(emb, Rule('mean', {'image': 1.}, 1.01, 8), table)
    assert 'No two listings match' in nobody and '0 false matches' in nobody and Reader(nobody)
    everybody = report_html(emb, Rule('mean', {'image': 1.}, -1., 60, 60), table)
    assert Reader(everybody).by_id['recall'] == '100%' and '0 missed matches' in everybody and '60 together' in everybody
    alone = report_html(emb, Rule('mean', {'image': 1.}, .5, 1), table)
    assert 'No listing has a candidate' in alone and Reader(alone).by_id['precision'] == 'none'
    few = report_html(emb, Rule('mean', {'image': 1.}, -1., 60, 2), table)
    assert 'beyond the 2 matches a listing may have' in few


@pytest.mark.parametrize('how, weights, threshold', [('mean', {'image': 2., 'tfidf': 1., 'title': 0.}, .4),
                                                     ('prob_or', {'image': 4., 'title': 1.}, .6),
                                                     ('union', {'image': .2, 'title': -.1}, .3)])
def test_the_rule_in_words_computes_what_it_computes(how, weights, threshold):
    "The formula in the sentence, evaluated, is the fusion."
    emb, *_ = run()
    spaces, rule = emb.spaces(), Rule(how, weights, threshold, 8)
    i, j = np.triu_indices(60, 1)
    score = {k: spaces[k].scores(i, j) for k in weights}
    text = words(rule)
    if how == 'union':
        named = dict(re.findall(r'(\w+) (-?[\d.]+\d)', text.split('reached: ')[1].split('. Cand')[0]))
        got = np.any([score[k] >= float(o) for k, o in named.items()], 0)
    else:
        formula, cut = re.search(r'when the fused score, (.+), is (-?[\d.]+) or more', text).groups()
        for a, b in (('−', '-'), ('×', '*'), ('^', '**')): formula = formula.replace(a, b)
        got = eval(formula, {}, {k: np.clip(o, 0, None) if how == 'prob_or' else o for k, o in score.items()}) >= float(cut)
    want = judge_pairs(spaces, Rule(how, weights, threshold, 60, 60), emb.groups).pairs
    assert want.candidate.all() and (got == want.matched).mean() > .998 and 0 < got.sum() < len(got)
    assert 'at most 50 matches' in text and 'the 8 nearest' in text


def test_the_settings(html):
    emb, rule, *_ = run()
    page = Reader(html)
    assert json.loads(''.join(page.words('pre'))) == rule.to_dict()
    assert {'listings', 'skipped', 'seconds', 'run'} <= set(page.words('h3'))
    assert '<i>' in page.words('td') and 'empty file' in page.words('td')


def test_a_loss_that_ran_away_is_told():
    emb, rule, table, _ = run()
    page = report_html(emb, rule, table, losses=[3., 2., float('nan'), float('inf')], monitors={'recall@1': [float('nan')]})
    assert '2 steps without a finite loss' in page and 'no finite value to draw' in page and 'nan' not in page.replace('nance', '')
    assert '2 steps without' in report_html(emb, rule, table, losses=[float('nan')] * 2)


def test_many_steps_stay_small_and_keep_their_ends():
    y = np.r_[7., np.linspace(5, 3, 100_000), 1.]
    svg = chart({'loss': (np.arange(len(y)), y)}, 'step', 'loss', '')
    xy = points(re.search(r'class="line s0" d="([^"]+)"', svg)[1])
    assert len(xy) <= 400 and xy[0, 1] < xy[1:, 1].min() and xy[-1, 1] > xy[:-1, 1].max()
    assert xy[0, 0] == LEFT and xy[-1, 0] == W - RIGHT and xy[:, 1].min() > TOP and xy[:, 1].max() < H - BOTTOM


@pytest.mark.parametrize('change, match', [
    (dict(emb='trained'), '3 of 60 listings were trained on'), (dict(emb='unlabelled'), 'no groups'), (dict(table={}), "row 'fused'"),
    (dict(table='short'), 'scores of 59 listings'), (dict(images=[]), '0 for 60'), (dict(images='missing'), r'row \d+ \(emoji'),
    (dict(rule=Rule('mean', {'sound': 1.}, .5)), 'sound')])
def test_what_can_not_be_reported_is_named(tmp_path, change, match):
    emb, rule, table, files = run()
    given = dict(emb=emb, rule=rule, table=table, images=files, **{}) | change
    if given['emb'] == 'trained': given['emb'] = Embeddings(dict(emb), emb.ids, emb.titles, emb.groups, np.arange(60) < 3)
    if given['emb'] == 'unlabelled': given['emb'] = Embeddings(dict(emb), emb.ids, emb.titles)
    if given['table'] == 'short': given['table'] = run(n=59)[2]
    if given['images'] == 'missing': given['images'] = [tmp_path/f'{i}.png' for i in range(60)]
    with pytest.raises(InputError, match=match): report_html(**given)


def test_written_whole_or_not_at_all(tmp_path):
    file = tmp_path/'a.html'
    write_atomically(file, 'old')
    # a lone surrogate can't be written as UTF-8
    with pytest.raises(UnicodeEncodeError): write_atomically(file, 'new \ud800')
    assert file.read_text() == 'old' and list(tmp_path.iterdir()) == [file]
    write_atomically(file, 'ü')
    assert file.read_text(encoding='utf-8') == 'ü'


@pytest.fixture(scope='module')
def outcome(tmp_path_factory):
    "A real run on 120 listings at 64 px: an epoch of timm's smallest model, its weights random and on disk, as the job always loads some."
    file = tmp_path_factory.mktemp('weights')/'test_efficientnet.pth'
    torch.manual_seed(0)
    torch.save(timm.create_model('test_efficientnet', pretrained=False).state_dict(), file)
    df = pd.read_csv(demo_path()/'listings.csv')
    df = df[df.fold.isin([0, 1])].groupby('fold').head(60).reset_index(drop=True)
    return train_and_judge(df, demo_path()/'images', fold_col='fold', text_col=None, image_arch=str(file), size=64, epochs=1, bs=16,
                           echo=lambda o: None)


def test_a_real_run(outcome, tmp_path):
    path = write_report(outcome, tmp_path/'new'/'report.html')
    assert list(path.parent.iterdir()) == [path] == [tmp_path/'new'/'report.html']
    with pytest.raises(InputError, match='is a folder'): write_report(outcome, str(path.parent))
    html = path.read_text(encoding='utf-8')
    page, s = Reader(html), outcome.summary()
    assert page.words('h2') == SECTIONS and page.by_id['f1'] == f'{s["heldout"]["fused"]["row_f1"]:.3f}'
    assert page.by_id['gain'] == f'{s["gain"]["fused over untrained_fused"]["diff"]:+.3f}'
    assert page.by_id['at-cut'] == f'{row_f1(outcome.matches, outcome.emb.groups).mean():.5f}'
    rows = [re.findall(r'<td>(.*?)</td>', o) for o in re.findall(r'<tr[^>]*>(.*?)</tr>', html[html.index('id="s1"'):html.index('id="s2"')])]
    assert [(o[0], o[1], o[2]) for o in rows if o] == [(k, f'{o["row_f1"]:.3f}', f'{o["se"]:.3f}') for k, o in s['heldout'].items()]
    assert all(o in html for o in ('recall@1', 'map@r', 'row_f1_max', 'training loss', s['versions']['torch']))
    # one epoch: a dot for each monitor
    assert len([a for a in page.of('circle')]) >= 3
    assert page.of('img') and len(html) < 1_000_000


def test_a_report_that_fails_leaves_the_old_one(outcome, tmp_path, monkeypatch):
    path = tmp_path/'report.html'
    path.write_text('old')
    monkeypatch.setattr(outcome.learn.dls, 'image_folder', tmp_path)
    with pytest.raises(InputError, match='can not be read'): write_report(outcome, path)
    assert path.read_text() == 'old' and [o.name for o in tmp_path.iterdir()] == ['report.html']
