"A Learner whose pictures are embedded part by part: terms of the loss, pictures of a pair, a saved matcher."
import numpy as np
import pytest
from fastai.callback.core import Callback
from fastai.vision.augment import Resize

from fastmatch.callback.heads import LossTerms
from fastmatch.callback.mix import MixUp
from fastmatch.core import InputError, seed_everything
from fastmatch.data.block import MatchDataLoaders
from fastmatch.data.demo import demo_path
from fastmatch.layers.heads import SampledHead
from fastmatch.learner import match_learner
from fastmatch.losses import ArcFace, Triplet
from fastmatch.match import candidates, choose_rule
from fastmatch.matcher import load_matcher, part_similarities
from fastmatch.models import Parts, with_ibn
from tests.matcher.trained import some_listings

HEADS = ['image_whole', 'image_1of2', 'image_2of2']


def make(parts, image_arch='test_efficientnet', size=32, **options):
    seed_everything(0)
    dls = MatchDataLoaders.from_df(some_listings(), demo_path()/'images', text_col=None, fold_col='fold',
                                   bs=16, num_workers=0, phash=False, item_tfms=Resize(size))
    if isinstance(image_arch, str): options['pretrained'] = False
    return match_learner(dls, image_arch, parts=parts, **options)


class BatchLosses(Callback):
    "Notes the loss of each training batch."
    def before_fit(self): self.seen = []
    def after_loss(self):
        if self.training: self.seen.append(float(self.loss.detach()))


def quiet(learn, epochs=1, **options):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, 1e-3, **options)
    return learn


@pytest.fixture(scope='module')
def learn(): return quiet(make(Parts((1, 2), width=16)))


def test_each_head_is_a_term_in_the_recorder():
    learn = make(Parts((1, 2), width=16), loss_func=ArcFace(m=.1, s=10, head_weights={'image_whole': 2.}))
    terms, losses = LossTerms(), BatchLosses()
    quiet(learn, cbs=[terms, losses])
    names = learn.recorder.metric_names
    assert [name for name in names if name in HEADS] == HEADS
    row = dict(zip(names[1:], learn.recorder.values[-1]))
    assert sum(terms.term(head) for head in HEADS) == pytest.approx(np.mean(losses.seen), rel=1e-5)
    assert row['image_1of2'] == pytest.approx(terms.term('image_1of2'))
    assert learn.loss_func.on_heads is None
    with pytest.raises(InputError, match='a model with several heads'):
        quiet(make(None), cbs=[LossTerms()])


@pytest.mark.parametrize('options, cbs', [
    (dict(head_func=SampledHead), []), (dict(loss_func=Triplet(), neck='raw'), []), ({}, [MixUp()]),
    ({}, [MixUp(), LossTerms()])])
def test_with_the_other_heads_losses_and_mixing(options, cbs):
    learn = quiet(make(Parts((1, 2), width=16), **options), cbs=cbs)
    assert np.isfinite([float(loss) for loss in learn.recorder.losses]).all()


def test_a_matcher_is_saved_and_embeds_the_same(learn, tmp_path):
    embeddings = learn.embeddings()
    assert embeddings['image'].shape[1] == 3 * 16
    rule = choose_rule(candidates(embeddings.spaces()), embeddings.groups)
    matcher = learn.matcher(learn.dls.valid_df, rule)
    matcher.save(tmp_path/'parts')
    loaded = load_matcher(tmp_path/'parts')
    files = [demo_path()/'images'/name for name in learn.dls.valid_df.image[:5]]
    vectors, *_ = loaded.encoder.embed(files)
    np.testing.assert_allclose(vectors['image'], embeddings['image'][:5], atol=1e-4)
    shown = part_similarities(loaded.encoder, *files[:2])
    assert list(shown) == ['whole', '1of2', '2of2']
    expected = vectors['image'][0] @ vectors['image'][1]
    assert np.mean(list(shown.values())) == pytest.approx(expected, abs=1e-5)


def test_what_a_pair_has_in_common_is_drawn(learn):
    first, second = learn.dls.valid_df.posting_id[:2]
    figure = learn.show_parts(first, second)
    texts = [text.get_text() for ax in figure.axes for text in ax.texts]
    files = [demo_path()/'images'/name for name in learn.dls.valid_df.image[:2]]
    expected = part_similarities(learn.encoder(), *files)
    assert texts == [f'{expected["whole"]:.2f}'] * 2 + [f'{expected[part]:.2f}' for part in
                                                       ('1of2', '2of2', '1of2', '2of2')]
    alike = part_similarities(learn.encoder(), files[0], files[0])
    np.testing.assert_allclose(list(alike.values()), 1, atol=1e-5)
    with pytest.raises(InputError, match="'nobody': no listing"): learn.show_parts(first, 'nobody')
    with pytest.raises(InputError, match='no embeddings of parts'): make(None).show_parts(first, second)


def test_of_changed_blocks():
    encoder = with_ibn('test_resnet', pretrained=False, pool='map')
    learn = quiet(make(Parts((1,), width=16), encoder, size=64))
    spec = learn.encoder().spec()['image']
    assert spec['kind'] == 'parts' and spec['encoder']['changes'] == [{'ibn': 'a'}]


def test_refusals():
    with pytest.raises(InputError, match="6 stripes don't divide the 2 rows"): make('pcb')
