"""What a trained model says of items, for a student: large to small, to itself, across modalities, several to
one."""
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from fastai.torch_core import get_model
from fastcore.basics import noop
from torch.nn import functional as F

from ..core import InputError
from ..data.classify import ClassifyDataLoaders
from ..data.outputs import TeacherOutputs
from ..match.cells import texts_of


def teacher_outputs(
    learn,  # `ClassifyLearner` or `MatchLearner`, trained
    # Items, with the columns of `learn.dls`; None: those that it was trained on and those without a label
    df: pd.DataFrame | None = None,
    path=None,  # Folder of the images of `df`; None: that of `learn.dls`
    file=None,  # '.npz' to keep the outputs in: they are read from there when they are of the same weights
) -> TeacherOutputs:
    """Logits of a classifier, and the features that its heads read as embeddings; of a model for matching its
    embeddings. Items are read without augmentation.

    Of the items that it was trained on the teacher knows the labels, and is surer than it would be; what it
    says of those without a label is new to a student, which takes them in by `with_pseudo_labels`. A student
    that is validated on items which the teacher was trained on is refused when its training begins.
    """
    dls = learn.dls
    if df is None:
        if path is not None: raise InputError('path is the folder of a table: give df too')
        parts = [dls.train_df, *([] if dls.unlabelled is None else [dls.unlabelled])]
        df = pd.concat(parts, ignore_index=True)
    made_by = weights_fingerprint(learn.model)
    stored = _stored(file, made_by, df[dls.columns.id])
    if stored is not None: return stored
    logits = None
    if isinstance(dls, ClassifyDataLoaders): logits, embeddings, ids = _of_classifier(learn, df, path)
    else: embeddings, ids = _of_matcher(learn, df, path)
    trained_on = getattr(learn, 'trained_on', None)
    known = trained_on is not None and not trained_on.unknown
    outputs = TeacherOutputs(ids, logits, embeddings, None if logits is None else list(dls.vocab),
                             np.array(sorted(trained_on.ids), dtype=str) if known else None, made_by)
    if file is not None: outputs.save(file)
    return outputs


def weights_fingerprint(
    model: torch.nn.Module,
) -> str:
    "A hash of the names and values of all weights and buffers."
    digest = hashlib.sha256()
    for name, tensor in sorted(get_model(model).state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f'{name} {values.dtype} {tuple(values.shape)}'.encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def _stored(file, made_by, ids):
    "The outputs in a file, where they are of these weights and items; None to make them anew."
    if file is None or not Path(file).exists(): return None
    stored = TeacherOutputs.load(file)
    if stored.made_by != made_by or set(texts_of(ids)) - set(stored.ids): return None
    return stored


def _of_classifier(learn, df, path):
    "(logits, features side by side at unit length, ids)."
    items = learn.dls.widen(df, path)
    parts = []

    def note(modality):
        def hook(module, inputs): found[modality] = F.normalize(inputs[0].detach().float()).cpu()
        return hook
    found = {}

    def gather(module, inputs, output): parts.append(torch.cat(list(found.values()), 1))
    model = get_model(learn.model)
    hooks = [neck.register_forward_pre_hook(note(modality)) for modality, neck in model.necks.items()]
    hooks.append(model.register_forward_hook(gather))
    try:
        with learn.no_bar(): logits = learn.get_preds(dl=learn.dls.test_dl(items), act=noop)[0]
    finally:
        for hook in hooks: hook.remove()
    return logits.float().numpy(), torch.cat(parts).numpy(), items[learn.dls.columns.id].to_numpy()


def _of_matcher(learn, df, path):
    "(the joint embedding, or the only one, ids)."
    embeddings = learn.embeddings(df, path=path)
    modality = 'joint' if 'joint' in embeddings else next(iter(embeddings))
    return embeddings[modality], embeddings.ids
