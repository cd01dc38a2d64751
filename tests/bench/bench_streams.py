"Streams: steps beside a bare loop, stored features beside encoding, masks beside none."
import tempfile
from copy import deepcopy

from tests.bench.bench_step import bare_step, learner_step, same_adam
from tests.bench.harness import Case, bench

ITEMS, FRAMES = 64, 5
TEXTS = ['title', 'heard', 'written']


def made_items(quick):
    "Items of the sample that have a category."
    from fastmatch.data.demo import demo_items
    items = demo_items(1.).dropna(subset='category')
    return items.groupby('category').head(8) if quick else items


def loaders(quick, folder=None):
    "Loaders over those items, with stored features, and their `FrameFeatures`."
    from fastmatch.data.classify import ClassifyDataLoaders
    from fastmatch.data.demo import demo_path
    from fastmatch.models import FrameFeatures
    arch = dict(image_arch='test_efficientnet', pretrained=False) if quick else {}
    features = FrameFeatures(size=32 if quick else 96, folder=folder, **arch)
    dls = ClassifyDataLoaders.from_df(
        made_items(quick), demo_path()/'images', id_col='item_id', image_col='images',
        title_col=TEXTS, label_col='category', fold_col='fold', frames=FRAMES, frame_features=features,
        max_len=dict.fromkeys(TEXTS, 16), bs=8 if quick else 32, num_workers=0, phash=False)
    return dls, features


def steps(learn):
    batches = [batch for batch, _ in zip(learn.dls.train, range(4))]
    untrained = deepcopy(learn.model)
    return {'fastmatch': lambda: learner_step(learn, batches),
            'bare loop': lambda: bare_step(learn, batches, deepcopy(untrained), same_adam)}


@bench('streams')
def training_steps(quick):
    "A step of pretraining and one of fine-tuning, single stream, beside a bare loop of the same model."
    from fastmatch.core import seed_everything
    from fastmatch.learner import classify_learner, pretrain_learner
    seed_everything(0)
    dls, _ = loaders(quick)
    yield Case('pretraining step', steps(pretrain_learner(dls, fusion='single')), 'bare loop', bar=1.05)
    yield Case('fine-tuning step', steps(classify_learner(dls, fusion='single')), 'bare loop', bar=1.05)


@bench('streams')
def stored_features(quick):
    "An epoch's frames read from the store by a new process' memory, beside encoding all of them."
    from fastmatch.data.demo import demo_path
    folder = tempfile.mkdtemp()
    _, features = loaders(quick, folder)
    names = [name for cell in made_items(quick).images for name in cell.split()[:FRAMES]]
    paths = [demo_path()/'images'/name for name in names]

    def read():
        # as at the start of another run: nothing is in memory yet
        features._vectors.clear()
        features._contents.clear()
        features(paths)

    def encode():
        plain = type(features)(features.encoder, size=features.size)
        plain(paths)
    yield Case('frames of an epoch', {'stored': lambda: read, 'encoded': lambda: encode}, 'encoded', bar=.1)


@bench('streams')
def masks(quick):
    "A single stream over items of which all frames and tokens are there: with its masks, and without any."
    import torch

    from fastmatch.models.fusion import SingleStream, StreamBatch
    from fastmatch.models.text import TitleEncoder
    torch.manual_seed(0)
    title = TitleEncoder().eval()
    stream = SingleStream(title, 1280).eval()
    n, length = (4, 8) if quick else (ITEMS, 40)
    batch = StreamBatch(torch.randn(n, FRAMES, 1280), torch.ones(n, FRAMES, dtype=torch.bool),
                        torch.randint(1000, 20000, (n, length)), torch.ones(n, length, dtype=torch.bool))
    body = title.body

    def masked():
        with torch.no_grad(): return stream(title, batch).pooled

    def unmasked():
        with torch.no_grad():
            words = body.get_input_embeddings()(batch.ids)
            states = torch.cat([stream.frames(batch.frames), words], 1)
            places = torch.cat([torch.arange(FRAMES), torch.arange(length)]).expand(n, -1)
            return body(inputs_embeds=states, position_ids=places).last_hidden_state.mean(1)
    difference = float((masked() - unmasked()).abs().max())
    if difference > 1e-3: raise AssertionError(f'the sides differ by {difference}')
    yield Case('attention', {'masked': lambda: masked, 'unmasked': lambda: unmasked}, 'unmasked', bar=1.02)
