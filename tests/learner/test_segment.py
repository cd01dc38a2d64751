"A Learner of masks: what its figures are, what it finds, what it hands on, and data that it refuses."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.data.transforms import Normalize
from fastai.learner import load_learner
from fastai.vision.augment import Resize, aug_transforms
from PIL import Image

from fastmatch.core import InputError, seed_everything
from fastmatch.data.demo import demo_path
from fastmatch.data.masks import MaskRule, image_dice, read_mask
from fastmatch.data.segment import SegmentDataLoaders
from fastmatch.learner.segment import segment_learner
from fastmatch.losses import DiceBCE, Lovasz
from fastmatch.match import candidates, choose_rule
from fastmatch.match.embeddings import Embeddings
from fastmatch.match.spaces.picture_sets import Pictures
from fastmatch.matcher.segment import Segmenter, crop_to_product, load_segmenter, with_crop
from tests.composites import write_composites

pytest.importorskip('segmentation_models_pytorch')


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "Folder and table of 48 composites."
    folder = tmp_path_factory.mktemp('composites')
    listings = pd.read_csv(demo_path()/'listings.csv').head(48)
    table = write_composites(listings, demo_path()/'images', folder, 48)
    return folder, table.assign(fold=np.arange(48) % 4)


def loaders(made, **options):
    folder, table = made
    options = {'item_tfms': Resize(32, method='squish'), 'bs': 8, **options}
    return SegmentDataLoaders.from_df(table, folder, **options)


def learner(dls, **options):
    seed_everything(0)
    return segment_learner(dls, 'test_resnet', pretrained=False, **options)


def quiet(learn, epochs=1, rate=2e-3, **options):
    with learn.no_bar(), learn.no_logging(): learn.fit(epochs, rate, **options)
    return learn


@pytest.fixture(scope='module')
def learn(made): return quiet(learner(loaders(made), attention='scse', dual=True), 2)


def test_composites_are_repeated_by_their_seed(made, tmp_path):
    folder, table = made
    listings = pd.read_csv(demo_path()/'listings.csv').head(3)
    again = write_composites(listings, demo_path()/'images', tmp_path, 48)
    assert again.has_product.tolist() == table.has_product[:3].tolist()
    for name in again.image: assert (tmp_path/name).read_bytes() == (folder/name).read_bytes()
    assert .5 < table.has_product.mean() < .9
    marked = np.mean([read_mask(folder/name).mean() for name in table['mask'].dropna()])
    assert .03 < marked < .5


def test_batches_hold_pictures_and_their_masks(made):
    folder, table = made
    dls = loaders(made, item_tfms=Resize(48, method='squish'))
    pictures, masks = dls.valid.one_batch()
    assert pictures.shape == (8, 3, 48, 48) and 0 <= pictures.min() and pictures.max() <= 1
    for row, mask in zip(dls.valid_df['mask'], masks):
        expected = read_mask(folder/row) if isinstance(row, str) else np.zeros((48, 48))
        np.testing.assert_array_equal(mask.numpy(), expected)


def test_it_learns_four_pictures_by_heart(made):
    folder, table = made
    few = pd.concat([table[table.has_product].head(4)] * 2).assign(fold=[0] * 4 + [1] * 4)
    dls = SegmentDataLoaders.from_df(few, folder, item_tfms=Resize(32, method='squish'), bs=4)
    learn = quiet(learner(dls, metrics=[]), 20, 1e-2)
    scores = learn.image_scores()
    probabilities, true = learn.probabilities()
    # marking all of a picture would give as much
    everything = image_dice(np.ones_like(true, bool), true == 1)
    assert scores.mean() > everything.mean() + .15


@pytest.mark.parametrize('seed', [3, 5])
def test_a_feature_pyramid_does_not_find_everything_empty(made, seed):
    seed_everything(seed)
    learn = segment_learner(loaders(made), 'test_resnet', 'fpn', pretrained=False)
    quiet(learn, 8)
    has_product = learn.dls.valid_df['mask'].notna().to_numpy()
    # with a head of nine pixels as torch makes it: .000 and .000
    assert learn.image_scores()[has_product].mean() > .1


def test_its_figures_are_those_of_its_masks(learn, made):
    probabilities, true = learn.probabilities()
    assert probabilities.shape == (12, 2, 32, 32) and probabilities.dtype == np.uint8
    dice = image_dice(probabilities[:, 1] > probabilities[:, 0], true == 1)
    np.testing.assert_allclose(learn.image_scores(), dice)
    rule, best = learn.choose_rule()
    np.testing.assert_allclose(learn.image_scores(rule).mean(), best)
    assert best >= dice.mean() - 1e-9
    table = learn.scores(rule)
    found = rule(probabilities[:, 1])
    assert table.dice[1] == pytest.approx(2 * (found & (true == 1)).sum() / (found.sum() + (true == 1).sum()))
    figure = learn.show_worst(3, rule)
    assert f'Dice {np.sort(learn.image_scores(rule))[0]:.2f}' == figure.axes[0].get_xlabel()
    assert len(learn.show_masks(4).axes) == 4


def test_the_recorder_shows_dice(made):
    learn = quiet(learner(loaders(made)))
    assert list(learn.recorder.metric_names) == ['epoch', 'train_loss', 'valid_loss', 'dice', 'time']
    model = learn.model.eval()
    with torch.no_grad():
        found = torch.cat([model(pictures) for pictures, _ in learn.dls.valid])[:, 0].numpy() > 0
    true = np.concatenate([masks.numpy() for _, masks in learn.dls.valid]) == 1
    assert learn.validate()[1] == pytest.approx(image_dice(found, true).mean(), abs=1e-6)


def test_the_recorders_dice_is_that_of_what_is_found(learn):
    "Also where the second output says that a class is not there."
    assert learn.validate()[1] == pytest.approx(learn.image_scores().mean(), abs=1e-6)
    presence = learn.model.presence[-1]
    bias = presence.bias.detach().clone()
    for shift, is_empty in ((-50., True), (0., False)):
        with torch.no_grad(): presence.bias.copy_(bias + shift)
        assert learn.validate()[1] == pytest.approx(learn.image_scores().mean(), abs=1e-6)
        if is_empty:
            assert learn.validate()[1] == learn.dls.valid_df['mask'].isna().mean()


def test_mirror_images_are_averaged(learn):
    pictures, _ = learn.dls.valid.one_batch()
    pictures = pictures.as_subclass(torch.Tensor)

    def product(images):
        with torch.no_grad(): output = learn.model.eval()(images)
        return output['mask'].sigmoid()[:, 0] * output['presence'].sigmoid()[:, :, None]
    expected = (product(pictures) + product(pictures.flip(3)).flip(2)) / 2
    found, _ = learn.probabilities(tta=True)
    np.testing.assert_allclose(found[:8, 1] / 255, expected, atol=.51 / 255)


@pytest.mark.parametrize('loss', [Lovasz(), DiceBCE()])
def test_other_losses_more_classes_and_augmentations(made, loss, tmp_path):
    dls = loaders(made, classes=('background', 'product', 'nothing'), batch_tfms=aug_transforms())
    learn = quiet(learner(dls, decoder='fpn', hypercolumn=True, loss_func=loss))
    assert np.isfinite([float(value) for value in learn.recorder.losses]).all()
    assert learn.scores()['class'].tolist() == ['background', 'product', 'nothing']
    with pytest.raises(InputError, match='3 classes: a rule is for two'): learn.choose_rule()
    with pytest.raises(InputError, match='a rule is for two'): learn.scores(MaskRule())


def test_a_segmenter_is_saved_and_finds_the_same(learn, made, tmp_path):
    folder, _ = made
    rule, _ = learn.choose_rule(tta=True)
    segmenter = learn.segmenter(rule, tta=True)
    segmenter.save(tmp_path/'segmenter')
    loaded = load_segmenter(tmp_path/'segmenter')
    files = [folder/name for name in learn.dls.valid_df.image]
    expected, _ = learn.probabilities(tta=True)
    np.testing.assert_allclose(loaded.probabilities(files, bs=5).astype(int), expected[:, 1], atol=2)
    np.testing.assert_array_equal(loaded.masks(files), segmenter.masks(files))
    assert loaded.rule == rule
    assert next(learn.model.parameters()).requires_grad
    with pytest.raises(InputError, match='none.png: no such file'): loaded.masks([folder/'none.png'])


class Middle(Segmenter):
    "Finds the middle of every picture but of blank ones."
    def __init__(self): pass

    def masks(self, pictures, bs=32):
        found = np.zeros((len(pictures), 10, 10), bool)
        found[:, 3:7, 4:6] = True
        for row, picture in enumerate(pictures): found[row] &= 'blank' not in str(picture)
        return found


PIXELS = np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8)
CUT = PIXELS[30:70, 80:120]  # what `Middle` finds in them


def write_picture(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(PIXELS).save(file, 'PNG')
    return file


def pixels_of(file): return np.asarray(Image.open(file))


def test_pictures_are_cropped_to_the_product(tmp_path):
    for name in ('a.png', 'blank.png'): write_picture(tmp_path/name)
    table = pd.DataFrame({'image': ['a.png', 'blank.png', 'a.png'], 'n': [1, 2, 3]})
    crops = crop_to_product(table, tmp_path, Middle(), tmp_path/'cropped', margin=0)
    np.testing.assert_array_equal(pixels_of(tmp_path/'cropped'/'a.png'), CUT)
    np.testing.assert_array_equal(pixels_of(tmp_path/'cropped'/'blank.png'), PIXELS)
    assert crops.image.tolist() == [str(tmp_path/'cropped'/name) for name in table.image]
    assert crops.n.tolist() == [1, 2, 3] and table.image[0] == 'a.png'
    with pytest.raises(InputError, match='give another folder'):
        crop_to_product(table, tmp_path, Middle(), tmp_path)
    with pytest.raises(InputError, match="image_col='photo'"):
        crop_to_product(table, tmp_path, Middle(), tmp_path/'other', image_col='photo')


def test_crops_stay_in_their_folder_and_off_the_pictures(tmp_path):
    folder, to = tmp_path/'shop'/'pictures', tmp_path/'crops'
    sources = [write_picture(file) for file in (
        folder/'a.png', folder/'sub'/'a.png', tmp_path/'other'/'a.png', tmp_path/'shop'/'a.png',
        folder/'A.png', folder/'bare', folder/'bare.png', folder/'odd.tga')]
    before = [file.read_bytes() for file in sources]
    cells = [str(sources[2]), '../a.png', str(folder/'a.png'), 'sub/a.png', 'A.png', 'bare', 'bare.png',
             'odd.tga']
    crops = crop_to_product(pd.DataFrame({'image': cells}), folder, Middle(), to, margin=0)
    assert [file.read_bytes() for file in sources] == before
    written = {str(file) for file in to.rglob('*') if file.is_file()}
    assert set(crops.image) == written and len(written) == len(cells)
    # names of a file system that does not tell upper from lower case either
    assert len({name.lower() for name in written}) == len(cells)
    for file in written: np.testing.assert_array_equal(pixels_of(file), CUT)
    plain = ['a.png', 'sub/a.png', 'bare.png']
    assert crops.image[[2, 3, 6]].tolist() == [str(to/name) for name in plain]
    # a second call replaces its crops
    again = crop_to_product(pd.DataFrame({'image': cells}), folder, Middle(), to, margin=.1)
    assert again.image.tolist() == crops.image.tolist()
    assert pixels_of(to/'a.png').shape == (48, 48, 3)


def test_crops_that_would_replace_pictures_are_refused(tmp_path):
    first, second = write_picture(tmp_path/'a.png'), write_picture(tmp_path/'in'/'a.png')
    with pytest.raises(InputError, match='a.png is one of the pictures'):
        crop_to_product(pd.DataFrame({'image': ['a.png', 'in/a.png']}), tmp_path, Middle(), tmp_path/'in')
    (tmp_path/'links').mkdir()
    (tmp_path/'links'/'a.png').symlink_to(first)
    (tmp_path/'out').mkdir()
    (tmp_path/'out'/'in').symlink_to(tmp_path/'elsewhere')
    for to, cell, message in (('links', 'a.png', 'leads out of it'), ('out', 'in/a.png', 'leads out of it'),
                              ('a.png', 'in/a.png', 'a file, not a folder')):
        with pytest.raises(InputError, match=message):
            crop_to_product(pd.DataFrame({'image': [cell]}), tmp_path, Middle(), tmp_path/to)
    for file in (first, second): np.testing.assert_array_equal(pixels_of(file), PIXELS)
    assert not (tmp_path/'elsewhere').exists()


def test_rows_that_can_not_be_cropped(tmp_path):
    write_picture(tmp_path/'7')
    (tmp_path/'broken.png').write_bytes(b'no picture')
    cells = [7, None, float('nan'), 'broken.png', 'none.png']
    table = pd.DataFrame({'photo': pd.Series(cells, dtype=object)})

    def crop(**options): return crop_to_product(table, tmp_path, Middle(), tmp_path/'to', 'photo', **options)
    with pytest.raises(InputError) as refused: crop()
    for row, reason in ((1, 'no file name'), (2, 'no file name'), (3, 'broken.png: not an image'),
                        (4, 'none.png: no such file')):
        assert f'row {row}, photo: {reason}' in str(refused.value)
    assert 'row 0' not in str(refused.value) and not (tmp_path/'to').exists()
    with pytest.warns(UserWarning, match='4 rows are left out: row 1: no file name'):
        crops = crop(on_error='skip', margin=0)
    assert len(crops) == 1
    np.testing.assert_array_equal(pixels_of(crops.photo[0]), CUT)
    for margin in (-.6, float('nan'), float('inf'), 'a', None):
        with pytest.raises(InputError, match='margin='): crop(margin=margin)
    with pytest.raises(InputError, match='margin=-0.6'): Middle().crop([tmp_path/'7'], -.6)
    with pytest.raises(InputError, match="on_error='pass'"): crop(on_error='pass')
    with pytest.raises(InputError, match='segmenter: NoneType given'):
        crop_to_product(table, tmp_path, None, tmp_path/'to', 'photo')


def test_every_picture_of_a_listing_is_cropped(tmp_path):
    for name in ('a.png', 'b.png'): write_picture(tmp_path/name)
    table = pd.DataFrame({'image': ['a.png|b.png', 'b.png']})
    crops = crop_to_product(table, tmp_path, Middle(), tmp_path/'to')
    both = tuple(str(tmp_path/'to'/name) for name in ('a.png', 'b.png'))
    assert crops.image.tolist() == [both, both[1]]


def test_the_crop_is_a_modality_in_a_rule():
    rng = np.random.default_rng(0)
    groups = np.arange(40) // 2
    centers = rng.normal(size=(20, 16))[groups]
    whole, cropped = (Embeddings({'image': _unit(centers + noise * rng.normal(size=(40, 16)))},
                                 np.arange(40).astype(str), groups=groups) for noise in (2., .2))
    both = with_crop(whole, cropped)
    rule = choose_rule(candidates(both.spaces(only=('image', 'crop'))), groups)
    assert list(both) == ['image', 'crop'] and rule.weights['crop'] > rule.weights.get('image', 0)
    with pytest.raises(InputError, match='not the same listings'):
        with_crop(whole, cropped.take(np.arange(3)))
    titles = Embeddings({'title': np.eye(40)}, np.arange(40).astype(str))
    with pytest.raises(InputError, match='cropped: no embeddings of pictures'): with_crop(whole, titles)


def sample(settings=None, trained_on=None, n_pictures=1):
    vectors = np.eye(6, dtype=np.float32)
    if n_pictures > 1: vectors = Pictures(np.tile(vectors, (2, 1))[:6], np.repeat(np.arange(3), 2))
    return Embeddings({'image': vectors}, [str(row) for row in range(6 // n_pictures)], made_with=settings,
                      trained_on=trained_on)


def test_how_crops_were_made_goes_with_them():
    whole = sample({'tta': True, 'size': [64, 64]}, np.arange(6) == 1)
    cropped = sample({'tta': True, 'size': [32, 32]}, np.arange(6) == 4)
    both = with_crop(whole, cropped, margin=.2, blank=True)
    assert both.made_with == {'tta': True, 'size': [64, 64], 'crop': {
        'tta': True, 'size': [32, 32], 'margin': .2, 'blank': True}}
    assert both.trained_on.tolist() == [False, True, False, False, True, False]
    assert with_crop(sample(), sample()).made_with is None
    with pytest.raises(InputError, match='whole: embeddings made with tta=False, but here tta=True'):
        with_crop(sample({'tta': False}), cropped)
    with pytest.raises(InputError, match='margin=-1'): with_crop(whole, cropped, margin=-1)


def test_crops_of_several_pictures_stay_several():
    whole, cropped = sample(n_pictures=2), sample(n_pictures=2)
    both = with_crop(whole, cropped)
    assert set(both.pictures) == {'image', 'crop'} and both.similarity == 'best'
    np.testing.assert_array_equal(both.pictures['crop'].vectors, cropped.pictures['image'].vectors)
    np.testing.assert_array_equal(both.pictures['crop'].listings, [0, 0, 1, 1, 2, 2])
    assert 'pictures' not in (both.made_with.get('crop') or {})
    by_mean = with_crop(whole.compared_by('mean'), cropped.compared_by('mean'))
    assert by_mean.similarity == 'mean'
    with pytest.raises(InputError, match="pictures='best', but here pictures='mean'"):
        with_crop(whole, cropped.compared_by('mean'))


def _unit(vectors): return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_learner_is_exported(learn, tmp_path):
    learn.export(tmp_path/'segment.pkl')
    loaded = load_learner(tmp_path/'segment.pkl')
    pictures = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(loaded.model.eval()(pictures), learn.model.eval()(pictures))


def test_what_a_segmenter_reads_by_default(made):
    "Whole pictures out of proportion, so that what is trained can be handed on."
    folder, table = made
    dls = SegmentDataLoaders.from_df(table, folder, bs=2)
    segmenter = learner(dls).segmenter()
    assert segmenter.size == (224, 224)


def test_batches_of_one_picture(made):
    "BatchNorm finds a spread in the pixels of one picture, unless its deepest map has one pixel alone."
    with pytest.raises(InputError, match='bs=1: a batch has one row, and BatchNorm needs two'):
        quiet(learner(loaders(made, bs=1)))
    few = (made[0], made[1].head(8))
    quiet(learner(loaders(few, bs=1, item_tfms=Resize((32, 64), method='squish'))))
    seed_everything(0)
    without = segment_learner(loaders(few, bs=1), 'test_convnext', pretrained=False)
    assert not any(isinstance(each, torch.nn.BatchNorm2d) for each in without.model.encoder.modules())
    quiet(without)


def test_refusals(made, learn):
    normalized = loaders(made, batch_tfms=[*aug_transforms(), Normalize.from_stats([.5] * 3, [.5] * 3)])
    with pytest.raises(InputError, match='batch_tfms: leave Normalize out'): learner(normalized)
    with pytest.raises(InputError, match='loss_func: Lovasz .*MaskAndPresence.Lovasz'):
        learner(learn.dls, dual=True, loss_func=Lovasz())
    with pytest.raises(InputError, match='state: NoneType given'): learn.load_encoder_state(None)
    folder, table = made
    with pytest.raises(InputError, match='no picture is in that fold'): loaders(made, valid_fold=9)
    with pytest.raises(InputError, match="no column 'part'"): loaders(made, fold_col='part')
    with pytest.raises(InputError, match='two at least'): loaders(made, classes=('product',))
    with pytest.raises(InputError, match='SegmentDataLoaders.from_df'): segment_learner(None)
    with pytest.raises(InputError, match='no option of segment_learner .did you mean dual'):
        segment_learner(learn.dls, duall=True)
    cropped = learner(loaders(made, item_tfms=Resize(32)))
    with pytest.raises(InputError, match="Resize.size, method='squish'"): cropped.segmenter()
    with pytest.raises(InputError, match='mask: all masks of the training pictures are empty'):
        loaders((folder, table.assign(mask=[mask if fold == 0 else None
                                            for mask, fold in zip(table['mask'], table.fold)])))
