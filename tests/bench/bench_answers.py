"""Answers of a matcher by runtime: torch, ONNX and int8, pictures and titles, time and memory.

Listings of the sample that the encoders were not trained on. The title encoder is MiniLM as it comes, the
pictures' EfficientNet-Lite0 likewise, at 104 pixels, each with a neck fitted to the listings; the rule is the
plain fusion chosen on them by torch. All sides use as many threads as torch. What int8 loses in row F1 is
measured by the export itself, on the listings that it doesn't calibrate on.
"""
import os
import tempfile
from functools import cache
from pathlib import Path

from tests.bench.harness import Case, Value, bench

MAX_LOSS = .005  # in row F1


@cache
def shop(kind, quick):
    "A folder of a matcher of 'titles' or 'both' with all runtimes, its listings, and what the export found."
    import pandas as pd

    from fastmatch.data.columns import Columns
    from fastmatch.data.demo import demo_path
    from fastmatch.jobs.export import export_matcher
    from fastmatch.match import Embeddings, Rule, candidates, choose_rule
    from fastmatch.matcher import Matcher
    from fastmatch.matcher.listings import embed_listings
    listings = pd.read_csv(demo_path()/'listings.csv').query('fold == 0').reset_index(drop=True)
    if quick: listings = listings.head(80)
    # a run whose memory is measured finds what the bench has exported: exporting takes the more of it
    if made := os.environ.get(folder_variable(kind)): return Path(made), listings, None
    encoder, columns = made_encoder(kind, listings), Columns(image='image' if kind == 'both' else None)
    modalities = list(encoder.inputs)
    any_rule = Rule('mean', {modality: 1. for modality in modalities}, .5)
    known, _ = embed_listings(listings, demo_path()/'images', columns, any_rule, encoder)
    spaces = Embeddings(known, known.ids).spaces(tfidf=False)
    rule = choose_rule(candidates(spaces), listings.label_group)
    folder = Path(tempfile.mkdtemp())/kind
    Matcher(rule, known, encoder, columns).save(folder)
    # the bench says what is lost, whatever it is
    figures = export_matcher(folder, listings, demo_path()/'images', max_loss=1., echo=lambda line: None)
    return folder, listings, figures


def folder_variable(kind): return f'FASTMATCH_BENCH_SHOP_{kind.upper()}'


def made_encoder(kind, listings):
    "Untrained encoders; the pictures' neck is fitted to the listings, as training fits it."
    from fastmatch.matcher import Encoder, Picture
    from fastmatch.models import ImageEncoder, MatchNet, TitleEncoder, load_tokenizer
    tokenizer = load_tokenizer('all-MiniLM-L6-v2')
    title = TitleEncoder('all-MiniLM-L6-v2', pad_id=tokenizer.pad_token_id)
    if kind == 'titles': return Encoder(MatchNet(None, None, title), tokenizer=tokenizer)
    image = ImageEncoder()
    picture = Picture((104, 104), 'squish', mean=image.mean, std=image.std)
    model = MatchNet(None, image, title, ('image', 'title'))
    fit_neck(model, picture, listings.image)
    return Encoder(model, picture, tokenizer)


def fit_neck(model, picture, names):
    "Set the pictures' neck to the mean and variance of their features."
    import numpy as np
    import torch

    from fastmatch.data.demo import demo_path
    from fastmatch.picture import read_image
    images = [picture(read_image(demo_path()/'images'/name)) for name in names]
    pixels = torch.from_numpy(np.stack(images)).split(64)
    encoder, neck = model.encoders['image'].eval(), model.necks['image']
    with torch.no_grad(): features = torch.cat([encoder(picture.normalize(part)) for part in pixels])
    neck.running_mean.copy_(features.mean(0))
    neck.running_var.copy_(features.var(0))


def matched(kind, quick, runtime):
    "A call that matches the listings anew against the catalogue, as a user's does."
    from fastmatch.data.demo import demo_path
    from fastmatch.matcher import load_matcher
    folder, listings, _ = shop(kind, quick)
    matcher = load_matcher(folder, 'cpu', runtime=runtime)
    return lambda: matcher.match(listings.head(400), demo_path()/'images')


def speeds(kind, quick, bars):
    for runtime, bar in bars.items():
        yield Case(f'{kind}: {runtime}', {side: (lambda side=side: matched(kind, quick, side))
                                          for side in ('torch', runtime)}, 'torch', bar=bar)
    losses = shop(kind, quick)[2]['int8']['loss']
    for setting, loss in losses.items():
        yield Value(f'{kind}: int8, row F1 lost', setting, max(loss['diff'], 1e-9), 'row F1', MAX_LOSS)


@bench('answers')
def titles(quick):
    "Titles matched by MiniLM: torch beside ONNX and int8."
    yield from speeds('titles', quick, {'onnx': 1 / 2, 'int8': 1 / 3})


@bench('answers')
def both(quick):
    "Pictures and titles matched: torch beside ONNX and int8."
    yield from speeds('both', quick, {'onnx': 1 / 2.5, 'int8': 1 / 4})


@bench('answers')
def memory(quick):
    "Peak memory of a process that loads a matcher and matches, beyond its imports."
    if quick: return
    for kind in ('titles', 'both'):
        os.environ[folder_variable(kind)] = str(shop(kind, quick)[0])
        for runtime in ('onnx', 'int8'):
            yield Case(f'{kind}: memory, {runtime}',
                       {side: (lambda kind=kind, side=side: matched(kind, quick, side))
                        for side in ('torch', runtime)}, 'torch', bar=1., memory=True, pairs=3,
                       imports=('pandas', 'torch', 'transformers', 'fastmatch.matcher'))


@bench('answers')
def sentence_transformers(quick):
    "The same titles embedded beside sentence-transformers' own ONNX backend in int8."
    import importlib.util
    if importlib.util.find_spec('sentence_transformers') is None: return
    if importlib.util.find_spec('optimum') is None: return
    yield Case('titles: embedded by int8', {'fastmatch': lambda: own_titles(quick),
                                            'sentence-transformers': lambda: their_titles(quick)},
               'sentence-transformers', bar=1.)


def own_titles(quick):
    from fastmatch.matcher import load_matcher
    folder, listings, _ = shop('titles', quick)
    encoder, found = load_matcher(folder, runtime='int8').encoder, listings.title.tolist()
    return lambda: encoder.embed(None, found)


def their_titles(quick):
    import onnxruntime
    import torch
    from sentence_transformers import SentenceTransformer, export_dynamic_quantized_onnx_model

    from fastmatch.models.text import resolve
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    folder = tempfile.mkdtemp()
    plain = SentenceTransformer(resolve('all-MiniLM-L6-v2'), backend='onnx',
                                model_kwargs={'export': True, 'session_options': options})
    plain.save_pretrained(folder)
    export_dynamic_quantized_onnx_model(plain, 'avx512_vnni', folder)
    model = SentenceTransformer(folder, backend='onnx', model_kwargs={
        'file_name': 'model_qint8_avx512_vnni.onnx', 'session_options': options})
    found = shop('titles', quick)[1].title.tolist()
    return lambda: model.encode(found, batch_size=64)
