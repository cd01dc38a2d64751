"The main job: what it refuses before the work, what it writes, and what it tells of listings it left out."
import json

import numpy as np
import pandas as pd
import pytest
import torch

from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.jobs.options import Training
from fastmatch.jobs.train import is_result, train_and_judge
from fastmatch.matcher import load_matcher
from fastmatch.models.image import ImageEncoder
from fastmatch.models.registry import KINDS, EncoderKind
from tests.jobs.made import BROKEN, break_three, put, quick_run


def test_an_unknown_option_of_the_job(shop, tmp_path):
    with pytest.raises(InputError, match="aug='strnog'.*strong"):
        quick_run(shop, tmp_path/'out', 'x', aug='strnog')
    with pytest.raises(InputError, match='seed=-1'): quick_run(shop, tmp_path/'out', 'x', seed=-1)
    with pytest.raises(InputError, match="on_error='ignore'.*'skip'"):
        quick_run(shop, tmp_path/'out', 'x', on_error='ignore')
    with pytest.raises(InputError, match='resnet17.*resnet18'): quick_run(shop, tmp_path/'out', 'resnet17')
    with pytest.raises(InputError, match="catalogue='some'"):
        quick_run(shop, tmp_path/'out', 'x', catalogue='some')
    with pytest.raises(InputError, match='epohcs=2.*epochs'): quick_run(shop, tmp_path/'out', 'x', epohcs=2)
    with pytest.raises(InputError, match="rule='best': choose one of ladder, plain, tune"):
        quick_run(shop, tmp_path/'out', 'x', rule='best')
    with pytest.raises(InputError, match='matchless=1.5: a share of the groups, from 0 to 1'):
        quick_run(shop, tmp_path/'out', 'x', matchless=1.5)
    assert not (tmp_path/'out').exists()


def test_out_is_a_file(shop, tmp_path):
    (tmp_path/'out').write_text('mine')
    with pytest.raises(InputError, match=f'out={tmp_path}/out: is a file'):
        quick_run(shop, tmp_path/'out', 'x')
    assert (tmp_path/'out').read_text() == 'mine'


def test_what_it_writes(shop, tiny_encoder, tmp_path):
    lines = []
    summary = quick_run(shop, tmp_path/'out', tiny_encoder, echo=lines.append)
    file_names = {file.name for file in (tmp_path/'out').iterdir()}
    assert file_names >= {'manifest.json', 'matches.csv', 'summary.json', 'report.html'}
    assert all(map(is_result, file_names))
    assert json.loads((tmp_path/'out'/'summary.json').read_text(encoding='utf-8')) == summary
    assert set(summary) == {
        'promised',
        'judged',
        'heldout',
        'gain',
        'ladder',
        'rule',
        'rule_in_words',
        'seconds',
        'seed',
        'settings',
        'listings',
        'versions',
    }
    assert set(summary['seconds']) == {'data', 'untrained', 'train', 'embed', 'rule', 'matcher'}
    assert set(summary['settings']) == {
        'columns', 'image_arch', 'text_arch', 'size', 'aug', 'epochs', 'lr', 'bs', 'sampler', 'loss',
        'n_folds', 'valid_fold', 'num_workers', 'device', 'rule', 'matchless'}
    assert summary['settings']['size'] == 32 and summary['settings']['columns']['fold_col'] == 'fold'
    assert 'training 1 epochs ...' in lines and any('recall@1' in line for line in lines)


def test_options_by_object_and_by_keyword_are_the_same(shop, tiny_encoder):
    listings, folder = shop
    common = dict(fold_col='fold', title_col=None, echo=lambda line: None)
    options = dict(image_arch=tiny_encoder, size=32, epochs=1, bs=8, aug='none')
    by_keyword = train_and_judge(listings, folder, **common, **options)
    by_object = train_and_judge(listings, folder, training=Training(**options), **common)
    assert by_keyword.settings == by_object.settings and by_keyword.rule == by_object.rule
    np.testing.assert_array_equal(by_keyword.emb['image'], by_object.emb['image'])


def test_skip_trains_without_the_broken_ones_and_says_so(shop, tiny_encoder, tmp_path):
    "The summary lists id, row, column and reason, and the broken listings are in no result."
    break_three(shop[1])
    broken_shop = put(shop, 10, 'fold', None)
    with pytest.raises(InputError, match='4 unusable rows'):
        quick_run(broken_shop, tmp_path/'out', tiny_encoder)
    summary = quick_run(broken_shop, tmp_path/'out', tiny_encoder, on_error='skip')
    skipped = {row['id']: row for row in summary['listings']['skipped']}
    assert list(skipped) == ['p3', 'p10', 'p11', 'p24']
    assert [row['row'] for row in skipped.values()] == [3, 10, 11, 24]
    for posting_id, reason in BROKEN.items():
        assert reason in skipped[posting_id]['reason'] and skipped[posting_id]['column'] == 'image'
    assert skipped['p10']['column'] == 'fold'
    assert summary['listings']['train'] + summary['listings']['heldout'] == 36
    matches = pd.read_csv(tmp_path/'out'/'matches.csv')
    listings, _ = broken_shop
    assert set(matches.posting_id) == set(listings.posting_id[listings.fold == 0]) - set(skipped)


def test_a_report_that_fails_costs_no_training(shop, tiny_encoder, tmp_path, monkeypatch):
    import fastmatch.jobs.train

    def broken(*args, **kwargs): raise ValueError('no pictures today')
    monkeypatch.setattr(fastmatch.jobs.train, 'write_report', broken)
    lines = []
    quick_run(shop, tmp_path/'out', tiny_encoder, echo=lines.append)
    assert 'no report.html: ValueError: no pictures today' in lines
    assert (tmp_path/'out'/'manifest.json').exists() and not (tmp_path/'out'/'report.html').exists()


def test_both_settings_and_the_matcher_are_made_of_one_embedding(shop, tiny_encoder, tmp_path):
    "The catalogue is all listings, those that were trained on flagged; the held-out ones are the queries."
    listings, _ = shop
    summary = quick_run(shop, tmp_path/'all', tiny_encoder)
    pools = {name: judged['pool'] for name, judged in summary['judged'].items()}
    assert pools == {'in the catalogue': 40, 'among themselves': 8}
    assert list(summary['judged']) == ['in the catalogue', 'among themselves']
    rows = summary['judged']['among themselves']['rows']
    assert rows == summary['heldout'] and {'alone', 'image', 'fused', 'rule', 'untrained_fused'} <= set(rows)
    assert not {'untrained_fused', 'untrained_image'} & set(summary['judged']['in the catalogue']['rows'])
    assert summary['promised']['setting'] == 'in the catalogue' and summary['promised']['pool'] == 40
    assert {row['n'] for judged in summary['judged'].values() for row in judged['rows'].values()} == {8}
    matcher = load_matcher(tmp_path/'all', 'cpu')
    assert len(matcher) == 40 and matcher.info['promised'] == summary['promised']
    np.testing.assert_array_equal(
        matcher.trained_on, (listings.set_index('posting_id').fold != 0)[matcher.ids]
    )
    assert matcher.rule.to_dict() == summary['rule']


def test_a_matcher_of_the_held_out_listings_is_judged_among_them(shop, tiny_encoder, tmp_path):
    summary = quick_run(shop, tmp_path/'held', tiny_encoder, catalogue='heldout', rule='plain')
    assert list(summary['judged']) == ['among themselves', 'in the catalogue']
    assert summary['promised']['setting'] == 'among themselves' and summary['settings']['rule'] == 'plain'
    assert summary['promised']['row_f1'] == summary['heldout']['fused']['row_f1']
    assert len(load_matcher(tmp_path/'held', 'cpu')) == 8


def test_a_share_without_a_match(shop, tiny_encoder, tmp_path):
    "Of half of the groups one listing each is judged; all of them are matched and told in the report."
    summary = quick_run(shop, tmp_path/'out', tiny_encoder, matchless=.5)
    assert summary['settings']['matchless'] == .5 and summary['listings']['heldout'] == 8
    assert {row['n'] for judged in summary['judged'].values() for row in judged['rows'].values()} == {6}
    assert summary['heldout']['alone']['row_f1'] == round((4 * 2 / 3 + 2) / 6, 5)
    assert len(pd.read_csv(tmp_path/'out'/'matches.csv')) == 8
    assert '6 listings matched by' in (tmp_path/'out'/'report.html').read_text(encoding='utf-8')


def stages_of_failing_run(shop, output_folder, encoder, message, **options):
    "The lines that a run has told before it raised the `InputError` with `message`."
    lines = []
    with pytest.raises(InputError, match=message):
        quick_run(shop, output_folder, encoder, echo=lines.append, **options)
    return ' '.join(lines)


def test_ids_that_are_one_as_text_are_told_before_the_training(shop, tiny_encoder, tmp_path):
    listings, folder = shop
    same = listings.assign(posting_id=[1, '1', *range(2, len(listings))])
    told = stages_of_failing_run((same, folder), tmp_path/'out', tiny_encoder,
                                 "must be unique, also as text.*'1'")
    assert 'training' not in told


@pytest.mark.parametrize('as_number', [int, float])
def test_files_named_by_numbers(shop, tiny_encoder, tmp_path, as_number):
    listings, folder = shop
    for row, image in enumerate(listings.image): (tmp_path/str(row)).write_bytes((folder/image).read_bytes())
    numbered = listings.assign(image=[as_number(row) for row in range(len(listings))])
    quick_run((numbered, tmp_path), tmp_path/'out', tiny_encoder)
    matcher = load_matcher(tmp_path/'out')
    found, skipped = matcher.embed(numbered.head(4), tmp_path)
    assert len(found) == 4 and not len(skipped)


class Unspecified(ImageEncoder):
    "An encoder whose spec forgets what it does to its features."
    scale = 1.
    def __init__(self, name):
        super().__init__('test_efficientnet', pretrained=False)
        self.scale = torch.linspace(-1, 1, self.n_out)

    def forward(self, images): return super().forward(images) * self.scale

    @classmethod
    def from_spec(cls, spec): return ImageEncoder.from_spec(spec)


def test_an_encoder_that_a_matcher_would_not_bring_back_is_told_before(shop, tmp_path, monkeypatch):
    monkeypatch.setitem(KINDS['image'], 'forgetful', EncoderKind('forgetful', Unspecified))
    told = stages_of_failing_run(shop, tmp_path/'out', 'forgetful', 'not saved: .*image embeddings differ')
    assert 'training' not in told


def test_the_rehearsal_changes_no_figure(shop, tiny_encoder, tmp_path, monkeypatch):
    def vectors(name):
        quick_run(shop, tmp_path/name, tiny_encoder)
        return load_matcher(tmp_path/name).spaces['image'].vectors
    with_rehearsal = vectors('with')
    monkeypatch.setattr('fastmatch.jobs.train.rehearse', lambda learner: None)
    np.testing.assert_array_equal(vectors('without'), with_rehearsal)


def test_held_out_listings_of_one_source_are_told_before_the_work(shop, tiny_encoder, tmp_path):
    listings, folder = shop
    listings = listings.assign(shop=np.where(listings.fold == 0, 'corner shop', 'market'))
    words = "shop: all 8 held-out listings are of 'corner shop'.*hold out listings of several"
    told = stages_of_failing_run((listings, folder), tmp_path/'out', tiny_encoder, words, source_col='shop')
    assert 'untrained' not in told and not (tmp_path/'out').exists()


def test_a_column_that_few_listings_have_is_tried_with_one_of_them(shop, tiny_encoder, tmp_path):
    listings, folder = shop
    notes = [f'kind {row // 2}' if row > 5 else None for row in range(len(listings))]
    listings = listings.assign(notes=notes, code=[f'AB{row // 2:04}' if row % 3 else '' for row in range(40)])
    columns = Columns(fields={'notes': 'text', 'code': 'code'})
    quick_run((listings, folder), tmp_path/'out', tiny_encoder, columns=columns)
    assert (tmp_path/'out'/'manifest.json').exists()


def test_a_column_that_a_matcher_would_not_take_is_told_before(shop, tiny_encoder, tmp_path, monkeypatch):
    from fastmatch.match.fields.categories import Categories
    listings, folder = shop
    listings = listings.assign(brand=[f'brand {row % 4}' for row in range(len(listings))])
    def refuse(space, cells): raise InputError('brand: not read again')
    monkeypatch.setattr(Categories, 'transform', refuse)
    told = stages_of_failing_run((listings, folder), tmp_path/'out', tiny_encoder, 'brand: not read again',
                                 columns=Columns(fields={'brand': 'category'}))
    assert 'training' not in told
