"Listings that an encoder was trained on are refused by all that chooses or judges."
import numpy as np
import pytest

from fastmatch.core import InputError
from fastmatch.match import (
    Dense,
    Embeddings,
    Flat,
    Index,
    PairModel,
    Pool,
    RankSweep,
    Setting,
    Sweep,
    UnionSweep,
    best_by_rank,
    best_threshold,
    best_union,
    candidates,
    choose_rule,
    ensemble,
    expand,
    fuse,
    heldout,
    heldout_fused,
    heldout_pairs,
    in_the_catalogue,
    ladder,
)
from fastmatch.match.candidates import trained_on_of
from fastmatch.match.judge.groups import Groups
from fastmatch.match.spaces.pool import first_rows
from fastmatch.study import tune_rule

N = 40
GROUPS = np.arange(N) // 2
TRAINED = np.arange(N) >= 30


def embeddings(trained_on=TRAINED):
    rng = np.random.default_rng(0)
    vectors = {name: rng.normal(size=(N, 8))[GROUPS] + .5 * rng.normal(size=(N, 8))
               for name in ('image', 'title')}
    return Embeddings(vectors, [f'p{row}' for row in range(N)], groups=GROUPS, trained_on=trained_on)


JUDGES = {
    'choose_rule': lambda found: choose_rule(found, GROUPS),
    'heldout_fused': lambda found: heldout_fused(found, GROUPS, halvings=1),
    'heldout': lambda found: heldout(fuse(found), GROUPS, halvings=1),
    'heldout of the first': lambda found: heldout(fuse(found).top(5), GROUPS, halvings=1),
    'heldout_pairs': lambda found: heldout_pairs(found, GROUPS, halvings=1, folds=2),
    'PairModel.fit': lambda found: PairModel().fit(found, GROUPS),
    'PairModel.score_unseen': lambda found: PairModel().score_unseen(found, GROUPS, folds=2),
    'best_threshold': lambda found: best_threshold(fuse(found), GROUPS),
    'best_by_rank': lambda found: best_by_rank(fuse(found), GROUPS),
    'best_union': lambda found: best_union(found, GROUPS),
    'Sweep': lambda found: Sweep(fuse(found), GROUPS).best(),
    'RankSweep': lambda found: RankSweep(fuse(found), GROUPS).best(),
    'UnionSweep': lambda found: heldout(UnionSweep(found, GROUPS), GROUPS, halvings=1),
    'Flat': lambda found: Flat(found, GROUPS).sweep('mean', {'image': 1.}).best(),
}


@pytest.mark.parametrize('judge', JUDGES.values(), ids=JUDGES)
def test_every_judge_refuses_candidates_trained_on(judge):
    found = candidates(embeddings().spaces(), 10)
    with pytest.raises(InputError, match='10 of 40 listings were trained on.*never saw'): judge(found)
    judge(candidates(embeddings(None).spaces(), 10))


def test_settings_and_studies_refuse_them():
    spaces = embeddings().spaces()
    with pytest.raises(InputError, match='were trained on'):
        Setting('mine', spaces, Groups(GROUPS), np.arange(N))
    with pytest.raises(InputError, match='were trained on'): tune_rule(embeddings(), n_trials=1)
    # as a catalogue they may be found
    setting = in_the_catalogue(embeddings(), ~TRAINED)
    assert ladder(setting, 'quick', halvings=1).heldout.mean > .5
    assert choose_rule(setting).k == 50


def test_rows_that_were_not_trained_on_may_be_chosen_on():
    found = candidates(embeddings().spaces(), 10)
    held_out = ~TRAINED
    of_some = [best_threshold(fuse(found), GROUPS, rows=held_out)[0],
               best_threshold(fuse(found), GROUPS, rows=np.flatnonzero(held_out))[0],
               Flat(found, GROUPS, held_out).sweep('mean', {'image': 1., 'title': 1.}).best()[0]]
    np.testing.assert_allclose(of_some, of_some[0])
    assert best_union(found, GROUPS, rows=held_out)[1] > 0
    assert PairModel().fit(found, GROUPS, rows=held_out).names
    with pytest.raises(InputError, match='1 of 40.*(30)'):
        best_threshold(fuse(found), GROUPS, rows=np.arange(31))


def test_the_flag_goes_where_the_listings_go():
    space = embeddings().spaces()['image']
    flags = {
        'take rows': (space.take([0, 39, 31]), [False, True, True]),
        'take mask': (space.take(TRAINED), [True] * 10),
        'append': (space.append(Dense(space.vectors[:2])), [*TRAINED, False, False]),
        'append to': (Dense(space.vectors[:2]).append(space), [False, False, *TRAINED]),
        'pool': (Pool(space.take(TRAINED), space.take(~TRAINED)), [True] * 10),
        'catalogue': (Pool(space.take(~TRAINED), space.take(TRAINED)), [False] * 30),
        'first rows': (first_rows(space, 31), [False] * 30 + [True]),
        'expanded': (expand(space, space.search(4)), TRAINED),
        'ensemble': (ensemble([space, Dense(space.vectors)]), TRAINED),
    }
    for name, (made, wanted) in flags.items():
        assert list(trained_on_of({'image': made})) == list(wanted), name
    index = Index(space.vectors)
    assert trained_on_of({'image': index}) is None
    index.add(space)
    index.remove([0])
    index.rebuild()
    assert list(index.trained_on) == [*[False] * (N - 1), *TRAINED]
    copied = Embeddings(embeddings(), embeddings().ids, groups=GROUPS % 5)
    np.testing.assert_array_equal(copied.trained_on, TRAINED)
