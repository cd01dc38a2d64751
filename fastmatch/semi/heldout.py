"What a trained learner says of the items that it held out, and its weights, as files without pickle."
import hashlib
import json
import warnings
from collections import OrderedDict

import numpy as np
import torch

from ..callback.trained_on import joined_records
from ..core import InputError, preview
from ..learner import ClassifyLearner, MatchLearner
from ..match.cells import is_among, texts_of
from ..match.embeddings import Embeddings
from ..match.spaces.picture_sets import Pictures
from .same_run import as_json, digest_of

KINDS = {'classify': ClassifyLearner, 'match': MatchLearner}


def kind_of(
    learner,
) -> str:
    "'classify' or 'match'; raises `InputError` for another learner."
    for kind, of_kind in KINDS.items():
        if isinstance(learner, of_kind): return kind
    raise InputError(f'make_learner gave {type(learner).__name__}: it must give a learner of '
                     'classify_learner or match_learner')


def describe_learner(
    learner,
) -> dict:  # Plain values
    "What the learners of all folds of a run have in common: kind, items, classes, architecture, loss."
    kind = kind_of(learner)
    table, columns = learner.dls.df, learner.dls.columns
    shapes = [(name, list(tensor.shape)) for name, tensor in learner.model.state_dict().items()
              if not name.startswith('heads.')]
    return {'kind': kind, 'items': digest_of(table[columns.id], table[columns.group]),
            'classes': [str(name) for name in learner.dls.vocab] if kind == 'classify' else None,
            'architecture': hashlib.sha256(json.dumps(shapes).encode()).hexdigest(),
            'loss': type(learner.loss_func).__name__}


def embeddings_of(
    learner,
    df=None,  # Items with the columns of `dls`; default those held out
    path=None,  # Folder of the images of `df`; default that of `dls`
    tta=False,  # As for `MatchLearner.embeddings`; a classifier's features are those of the plain picture
) -> Embeddings:
    """The embeddings of items: of a classifier, the features that its heads read, with classes as groups."""
    if isinstance(learner, MatchLearner): return learner.embeddings(df, tta=tta, path=path)
    dls, columns = learner.dls, learner.dls.columns
    items, loader = dls.valid_df, dls.valid
    if df is not None:
        items = dls.widen(df, path)
        loader = learner.encoder_inputs.fit_loader(dls.test_dl(items))
    model, found = learner.model, []
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in loader:
                inputs = [each.as_subclass(torch.Tensor) for each in batch[:dls.n_inp]]
                found.append({name: array.float().cpu().numpy()
                              for name, array in model.features(*inputs).items()})
    finally: model.train(was_training)
    ids = items[columns.id].to_numpy()
    vectors = {name: np.concatenate([each[name] for each in found]) for name in found[0]}
    groups = items[columns.group].to_numpy() if df is None else None
    return Embeddings(vectors, ids, groups=groups, trained_on=is_among(ids, trained_on_of(learner)['ids']))


def trained_on_of(
    learner,
) -> dict:  # {'ids': text, 'unknown': bool}
    """Which items a learner was trained on.

    Of a classifier whose weights were loaded from a file that doesn't tell, those that it trains on now: a
    pretraining that reads no labels may have seen the others.
    """
    record = learner.trained_on.record.to_dict()
    if kind_of(learner) == 'match' or not record['unknown']: return record
    warnings.warn('weights were loaded that do not tell which items they were trained on: it is taken that '
                  'no labels of held-out items were among them', stacklevel=2)
    now = texts_of(learner.dls.train_df[learner.dls.columns.id])
    return {'ids': sorted({*record['ids'], *now}), 'unknown': False}


def check_held_out(
    ids,  # Of the items that a learner holds out
    record: dict,  # `TrainingRecord.to_dict`
    where: str,  # For the message
):
    "Raise `InputError` where the learner was trained on items that it holds out, or that isn't known."
    if record['unknown']:
        raise InputError(f'{where}: its weights were loaded from a file that does not tell which items they '
                         'were trained on: say learn.trained_on.declare(ids) in make_learner')
    ids = texts_of(ids)
    seen = ids[is_among(ids, record['ids'])]
    if len(seen):
        raise InputError(f'{where}: the learner was trained on {len(seen)} of the items that it holds out '
                         f'({preview(seen)})')
    if not record['ids']: raise InputError(f'{where}: fit trained nothing')


def heldout_files(
    learner,  # After its training
    tta,  # A bool or `Views`: of a match_learner as for `embeddings_of`, of a classifier for `predictions`
) -> dict:  # File name -> bytes
    "What a learner says of its held-out items, as json and safetensors."
    from safetensors.numpy import save
    embeddings = embeddings_of(learner, tta=tta)
    arrays = {}
    for modality, vectors in embeddings.items():
        if modality not in embeddings.pictures: arrays[f'vectors/{modality}'] = vectors
        else:
            pictures = embeddings.pictures[modality]
            arrays |= {f'pictures/{modality}': pictures.vectors, f'listings/{modality}': pictures.listings}
    listed = {'ids': texts_of(embeddings.ids).tolist(), 'titles': embeddings.titles,
              'groups': None if embeddings.groups is None else texts_of(embeddings.groups).tolist(),
              'phash': None if embeddings.phash is None else embeddings.phash.tolist(),
              'made_with': as_json(embeddings.made_with)}
    if isinstance(learner, ClassifyLearner):
        probabilities, targets, _ = learner._validated(tta)
        arrays |= {'probabilities': probabilities, 'targets': targets.astype(np.int64)}
    arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {'items.json': json.dumps(listed, ensure_ascii=False).encode(),
            'heldout.safetensors': save(arrays)}


def embeddings_from_files(
    files: dict,  # From `heldout_files`
) -> Embeddings:
    "The embeddings of the held-out items again."
    from safetensors.numpy import load
    arrays, listed = load(files['heldout.safetensors']), json.loads(files['items.json'])
    vectors = {name.removeprefix('vectors/'): array for name, array in arrays.items()
               if name.startswith('vectors/')}
    for name, array in arrays.items():
        if not name.startswith('pictures/'): continue
        modality = name.removeprefix('pictures/')
        vectors[modality] = Pictures(array, arrays[f'listings/{modality}'])
    groups = None if listed['groups'] is None else np.array(listed['groups'], object)
    return Embeddings(vectors, np.array(listed['ids'], object), listed['titles'], groups,
                      phash=listed['phash'], made_with=listed['made_with'])


def weights_files(
    learner,
) -> dict:  # File name -> bytes
    """A learner's weights and what they were trained on; without heads where these belong to the training's
    groups."""
    from safetensors.torch import save
    without_heads = isinstance(learner, MatchLearner)
    weights, memory = {}, set()
    for name, tensor in learner.model.state_dict().items():
        if without_heads and name.startswith('heads.'): continue
        tensor = tensor.detach().cpu().contiguous()
        # safetensors takes no tensor in another's memory, such as tied weights
        if tensor.untyped_storage().data_ptr() in memory: tensor = tensor.clone()
        memory.add(tensor.untyped_storage().data_ptr())
        weights[name] = tensor
    record = learner.trained_on.record.to_dict()
    return {'weights.safetensors': save(weights), 'trained_on.json': json.dumps(record).encode()}


def load_weights(
    learner,  # Of the same architecture
    files: dict,  # From `weights_files`
):
    "Put saved weights into a learner; raises `InputError` for those of another architecture."
    from safetensors.torch import load
    state = OrderedDict(load(files['weights.safetensors']))
    record = json.loads(files['trained_on.json'])
    own = learner.model.state_dict()
    wrong = sorted(name for name in set(own) | set(state)
                   if not (name.startswith('heads.') and isinstance(learner, MatchLearner))
                   and (name not in own or name not in state or own[name].shape != state[name].shape))
    if wrong: raise InputError(f'weights: {preview(wrong)} differ from what make_learner makes')
    state._metadata = joined_records([record])
    learner.model.load_state_dict(state, strict=False)
    # what the learner held before is gone: heads of a match_learner are for training alone
    learner.trained_on.record.load(record)
