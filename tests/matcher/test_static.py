"Static title encoders: means of token vectors, fitted to a teacher, saved and loaded as any other."
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from fastmatch.cli import app
from fastmatch.core import InputError
from fastmatch.data.columns import Columns
from fastmatch.data.demo import demo_path
from fastmatch.jobs import static as job
from fastmatch.match import Rule
from fastmatch.match.judge.score import row_f1
from fastmatch.match.pools import PoolThresholds
from fastmatch.matcher import Encoder, Matcher, load_matcher
from fastmatch.matcher import static as module
from fastmatch.matcher.batches import tokenize_titles
from fastmatch.models import MatchNet, TitleEncoder, load_tokenizer
from fastmatch.models.registry import encoder_from_spec, encoder_spec, make_encoder
from fastmatch.models.static import StaticTextEncoder
from tests.matcher.test_several import image_encoder
from tests.matcher.trained import needs_titles

pytestmark = needs_titles


def test_features_are_means_of_the_tokens_vectors():
    encoder = StaticTextEncoder('any', pad_id=3, vectors=nn.Embedding(7, 5))
    vectors = encoder.vectors.weight.detach().double()
    ids = torch.tensor([[1, 2, 2, 3], [5, 3, 3, 3], [3, 3, 3, 3]])
    wanted = torch.stack([(vectors[1] + 2 * vectors[2]) / 3, vectors[5], torch.zeros(5).double()])
    torch.testing.assert_close(encoder(ids).double(), wanted, atol=1e-6, rtol=0)
    longer = torch.cat([ids, torch.full((3, 4), 3)], 1)
    torch.testing.assert_close(encoder(longer), encoder(ids))


def test_by_its_name_it_begins_with_word_vectors():
    encoder = make_encoder('text', 'static:all-MiniLM-L6-v2')
    words = TitleEncoder('all-MiniLM-L6-v2').body.get_input_embeddings().weight
    assert torch.equal(encoder.vectors.weight, words) and encoder.vectors.weight.requires_grad
    spec = encoder_spec('text', encoder)
    again = encoder_from_spec('text', spec)
    again.load_state_dict(encoder.state_dict())
    ids = torch.tensor([[101, 2000, 102], [101, 102, 0]])
    assert spec['kind'] == 'static' and torch.equal(again(ids), encoder(ids))
    assert not torch.equal(make_encoder('text', 'static:all-MiniLM-L6-v2', pretrained=False).vectors.weight,
                           words)


@pytest.fixture(scope='module')
def teacher():
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    title = TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id)
    # all 30,522 tokens are asked for: the first layer suffices
    title.body.encoder.layer = title.body.encoder.layer[:1]
    title.body.config.num_hidden_layers = 1
    return Encoder(MatchNet(None, None, title), tokenizer=tokenizer, max_len=32)


@pytest.fixture(scope='module')
def listings(): return pd.read_csv(demo_path()/'listings.csv').drop_duplicates('title').reset_index(drop=True)


def test_the_fit_is_the_ridge_regression():
    "Against the normal equations in float64, with the start and its scale."
    rng = np.random.default_rng(0)
    alone = rng.normal(size=(9, 4)).astype(np.float32)
    token_ids = [rng.integers(0, 8, rng.integers(1, 6)).tolist() for _ in range(30)]
    targets = rng.normal(size=(30, 4)).astype(np.float32)
    means, counts = np.zeros((30, 9)), np.zeros(9)
    for row, ids in enumerate(token_ids):
        for token in ids:
            means[row, token] += 1 / len(ids)
            counts[token] += 1
    start = alone * (1e-3 / (1e-3 + counts / counts.sum()))[:, None]
    start = start * ((means @ start) * targets).sum() / ((means @ start) ** 2).sum()
    moved = np.linalg.solve(means.T @ means + .01 * np.eye(9), means.T @ (targets - means @ start))
    np.testing.assert_allclose(module._fitted(alone, token_ids, targets), start + moved, atol=2e-3)


def test_nearer_to_the_teacher_than_word_vectors(teacher, listings):
    "On titles that it was not fitted to, and with the token ids that the teacher reads."
    known, new = listings.title[:1200].tolist(), listings.title[1200:1500].tolist()
    student = module.distil_static(teacher, known)
    assert student.widths == teacher.widths and student.made_with == teacher.made_with
    expected = teacher.embed(None, new)[0]['title']
    found = student.embed(None, new)[0]['title']
    words = Encoder(MatchNet(None, None, StaticTextEncoder('all-MiniLM-L6-v2'), neck=False),
                    tokenizer=teacher.tokenizer, max_len=32).embed(None, new)[0]['title']
    assert (found * expected).sum(1).mean() > .8 > (words * expected).sum(1).mean()
    # a token that no title has stays as the teacher says it alone, in its direction
    unseen = next(token for token in range(2000, 9000)
                  if token not in set(sum(tokenize_titles(teacher.tokenizer, known, 32), [])))
    alone = teacher.model.embed(torch.tensor([[101, unseen, 102]]))['title'][0].numpy()
    vector = student.model.encoders['title'].vectors.weight[unseen].numpy()
    assert vector @ alone / np.linalg.norm(vector) == pytest.approx(1, abs=1e-4)


@pytest.fixture(scope='module')
def shop(teacher, listings, tmp_path_factory):
    "A folder of a matcher whose catalogue is two folds, and a fold to measure on."
    known = listings[listings.fold.isin([1, 2])].reset_index(drop=True)
    pools = PoolThresholds((50, 1000), (.6, .7))
    rule = Rule('mean', {'title': .7, 'tfidf': .3}, .7, pools=pools)
    matcher, _ = Matcher.from_df(known, '.', rule, teacher, Columns(image=None))
    folder = tmp_path_factory.mktemp('static')/'shop'
    matcher.save(folder)
    return folder, listings[listings.fold == 0].reset_index(drop=True)


@pytest.mark.slow
def test_a_static_matcher_by_the_command_line(shop, tmp_path):
    folder, new = shop
    new.to_csv(tmp_path/'new.csv', index=False)
    call = ['export', str(folder), '--static', str(tmp_path/'static'), '--listings', str(tmp_path/'new.csv')]
    result = CliRunner().invoke(app, call, catch_exceptions=False)
    assert result.exit_code == 0 and 'row F1' in result.output and 'lost' in result.output, result.output
    again = CliRunner().invoke(app, call, catch_exceptions=False)
    assert again.exit_code == 2 and 'is there already' in again.output
    static, teacher = load_matcher(tmp_path/'static', 'cpu'), load_matcher(folder, 'cpu')
    # as many pairs of the catalogue as with the teacher, but for equal scores
    pairs = [sum(len(row) - 1 for row in each.match().matches) for each in (teacher, static)]
    assert pairs[0] > 100 and abs(pairs[0] - pairs[1]) <= .02 * pairs[0]
    shift = static.rule.threshold - teacher.rule.threshold
    moved = np.subtract(static.rule.pools.thresholds, teacher.rule.pools.thresholds)
    np.testing.assert_allclose(moved, shift)
    # what was said is what a user gets
    figures = static.info['static']
    of_teacher, of_static = (row_f1(each.match(new, catalogue=False).matches, new.label_group).mean()
                             for each in (teacher, static))
    assert figures['listings'] == len(new) and figures['teacher_row_f1'] == pytest.approx(of_teacher, abs=.01)
    assert figures['loss']['diff'] == pytest.approx(of_teacher - of_static, abs=.01)
    # loaded without fastai it gives the same matches
    program = (f'import sys, pandas as pd; from fastmatch.matcher import load_matcher\n'
               f'matcher = load_matcher({str(tmp_path/"static")!r}, "cpu")\n'
               f'found = matcher.match(pd.read_csv({str(tmp_path/"new.csv")!r})).matches\n'
               'print(sum(map(len, found)), "fastai" in sys.modules)')
    said = subprocess.run([sys.executable, '-W', 'ignore', '-c', program], capture_output=True, text=True,
                          check=True).stdout.split()
    assert said == [str(sum(map(len, static.match(new).matches))), 'False']


@pytest.mark.slow
def test_without_groups_agreement_is_said(shop, tmp_path):
    folder, _ = shop
    figures = job.static_matcher(folder, tmp_path/'static', echo=lambda line: None).info['static']
    assert set(figures) == {'listings', 'agreement'} and .3 < figures['agreement'] <= 1


def test_what_cant_be_distilled(shop, teacher, listings, tmp_path):
    folder, _ = shop
    nothing = CliRunner().invoke(app, ['export', str(folder)], catch_exceptions=False)
    assert nothing.exit_code == 2 and '--static FOLDER' in nothing.output
    with pytest.raises(InputError, match='1 titles: give 2 or more'): module.distil_static(teacher, ['a bag'])
    with pytest.raises(InputError, match="reads titles alone, this one reads \\['image'\\]"):
        module.distil_static(image_encoder(0, (32, 32)), ['a', 'b'])
    all_known = listings[listings.fold.isin([1, 2])]
    with pytest.raises(InputError, match='all titles of the catalogue are among the listings'):
        job.static_matcher(folder, tmp_path/'none', all_known, echo=lambda line: None)
    assert not (tmp_path/'none').exists()
