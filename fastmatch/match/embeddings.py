"Embeddings with what is known of their listings: ids, titles, groups, and which rows an encoder was trained on."
import numpy as np

from ..core import InputError, preview


class Embeddings(dict):
    "Vectors by modality ({'image': (n,d), ...}, float32, unit length) of the same listings in the same order."
    def __init__(
        self,
        vectors: dict,  # Modality -> (n,d) array
        ids,  # (n,) what names each listing; or modality -> ids, where they come from different files: they must agree
        titles=None,  # (n,) titles, or None
        groups=None,  # (n,) groups, or None where they aren't known
        trained_on=None,  # bool (n,): an encoder was trained on this row; default none
        phash=None,  # (n,) perceptual hashes, None where a listing has none; or None
        labels=None,  # An earlier name of `groups`
    ):
        from pandas import isna as missing
        super().__init__({k: np.asarray(v, np.float32) for k, v in vectors.items()})
        self.ids = _one_order(ids) if isinstance(ids, dict) else np.asarray(ids)
        n = len(self.ids)
        titles = None if titles is None else list(titles)
        # str(None) and str(nan) would be titles like any other, and match each other
        if bad := [i for i, o in enumerate(titles or []) if missing(o)]: raise InputError(f'titles: rows {preview(bad)} are missing')
        self.titles = None if titles is None else [str(o) for o in titles]
        if groups is None: groups = labels
        self.groups = None if groups is None else np.asarray(groups)
        self.trained_on = np.zeros(n, bool) if trained_on is None else np.asarray(trained_on, bool)
        self.phash = None if phash is None else np.asarray(phash, dtype=object)
        for name, o in {**self, 'titles': self.titles, 'groups': self.groups, 'trained_on': self.trained_on, 'phash': self.phash}.items():
            if o is not None and len(o) != n: raise InputError(f'{name}: {len(o)} rows for {n} ids')

    @property
    def labels(self): return self.groups  # an earlier name of `groups`

    def __len__(self): return len(self.ids)  # listings; modalities are counted by `len(emb.keys())`
    def __repr__(self): return f'Embeddings({len(self)} listings: {", ".join(f"{k} {v.shape[1]}-d" for k, v in self.items())})'

    def refuse_trained_on(
        self,
        what: str,  # What they'd be used for
    ):
        "Raise `InputError` where rows were trained on: their similarities sit near 1 and mislead `what`."
        if self.trained_on.any():
            raise InputError(f'{self.trained_on.sum()} of {len(self)} listings were trained on ({preview(self.ids[self.trained_on])}): {what} '
                             'needs listings the encoder never saw')
        return self

    def spaces(
        self,
        tfidf: bool = True,  # Add the titles' character TF-IDF as a modality of its own, 'tfidf'
        only: tuple | None = None,  # Which modalities, as `Rule.reads` names them; default all but 'joint', which repeats the others, 'units' and 'same_title'
    ) -> dict:
        "Each modality as a space to search: what `candidates` takes; known perceptual hashes as the exact key 'phash'."
        from .spaces.dense import Dense
        from .spaces.keys import Keys, title_keys
        from .spaces.tfidf import Tfidf
        from .spaces.units import Units
        texts, given = ('tfidf', 'units', 'same_title'), () if only is None else tuple(only)
        names = [k for k in self if k != 'joint' or len(self.keys()) == 1] if only is None else [k for k in only if k not in (*texts, 'phash')]
        if self.titles is None and (lacking := [k for k in texts if k in given]): raise InputError(f'{lacking[0]!r} needs titles: the embeddings hold none')
        if self.phash is None and only is not None and 'phash' in only: raise InputError("'phash' needs perceptual hashes: the embeddings hold none")
        if unknown := [k for k in names if k not in self]: raise InputError(f'{unknown}: the embeddings hold {list(self)}')
        res = {k: Dense(self[k], k) for k in names}
        if self.titles is not None and (tfidf if only is None else 'tfidf' in only): res['tfidf'] = Tfidf(self.titles)
        if self.phash is not None and (only is None or 'phash' in only): res['phash'] = Keys(self.phash)
        if 'units' in given: res['units'] = Units(self.titles)
        if 'same_title' in given: res['same_title'] = Keys(title_keys(self.titles))
        return res


def _one_order(ids):
    first, *others = ((k, np.asarray(o)) for k, o in ids.items())
    for k, o in others:
        if len(o) != len(first[1]): raise InputError(f'{k}: {len(o)} ids, {first[0]}: {len(first[1])}')
        if (off := np.flatnonzero(o.astype(str) != first[1].astype(str))).size:
            same = sorted(o.astype(str)) == sorted(first[1].astype(str))
            raise InputError(f'{k}: row {off[0]} is {str(o[off[0]])!r}, in {first[0]} it is {str(first[1][off[0]])!r}: '
                             + ('the same listings in another order' if same else 'other listings'))
    return first[1]
