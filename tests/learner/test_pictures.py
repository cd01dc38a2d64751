"A Learner whose listings have several pictures: trained, embedded, shown, handed on as a matcher."
import matplotlib
import numpy as np
import pytest

from fastmatch.data.demo import demo_path
from fastmatch.match import Dense, PictureSets, among_themselves, candidates, choose_rule
from tests.learner.small import make

matplotlib.use('Agg')


@pytest.fixture(scope='module')
def merged(listings):
    "Each listing with a picture of another one of its group behind its own, where there is one."
    others = listings.groupby('label_group').image.transform(lambda names: names.shift(-1))
    cells = [name if other is None or other != other else f'{name}|{other}'
             for name, other in zip(listings.image, others)]
    return listings.assign(image=cells)


@pytest.fixture(scope='module')
def learner(merged):
    pytest.importorskip('timm')
    made = make(merged)
    with made.no_bar(), made.no_logging(): made.fit(1, 1e-3)
    return made


def test_embeddings_hold_every_picture(learner, merged, listings):
    emb = learner.embeddings()
    several = learner.dls.valid_df.image.map(lambda cell: isinstance(cell, tuple))
    assert several.any() and not several.all()
    assert (emb.pictures['image'].counts == several + 1).all()
    # what text says a table says
    of_table = learner.embeddings(merged[merged.posting_id.isin(emb.ids)])
    np.testing.assert_array_equal(of_table.pictures['image'].vectors, emb.pictures['image'].vectors)
    firsts = learner.embeddings(listings[listings.posting_id.isin(emb.ids)])
    assert not firsts.pictures and type(firsts.spaces()['image']) is Dense
    starts = emb.pictures['image'].counts.cumsum() - emb.pictures['image'].counts
    np.testing.assert_allclose(emb.pictures['image'].vectors[starts], firsts['image'], atol=1e-5)


def test_it_is_shown_with_the_first_picture(learner):
    from matplotlib import pyplot as plt
    learner.dls.show_batch()
    plt.close('all')
    learner.show_matches(n=8)
    notes = [ax.get_xlabel() for ax in plt.gcf().axes]
    assert any(note.endswith(' +1') for note in notes)
    learner.show_mistakes()
    plt.close('all')


def test_a_matcher_of_it(learner, tmp_path):
    from fastmatch.matcher import load_matcher
    emb = learner.embeddings()
    setting = among_themselves(emb)
    assert isinstance(setting.spaces['image'], PictureSets)
    rule = choose_rule(candidates(emb.spaces(tfidf=False)), emb.groups)
    matcher = learner.matcher(rule=rule)
    assert isinstance(matcher.spaces['image'], PictureSets)
    matcher.save(tmp_path/'m')
    found = load_matcher(tmp_path/'m', 'cpu').match(learner.dls.valid_df, learner.dls.image_folder)
    assert len(found) == len(emb)


def test_another_folder(learner, merged):
    emb = learner.embeddings(merged.head(12), path=demo_path()/'images')
    assert len(emb) == 12 and emb.pictures
