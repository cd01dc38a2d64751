"The matcher: what is trained, decided and known, ready for new listings."
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError, MissingPackage, check_device, preview
from ..data.columns import Columns
from ..data.read import Listings, check_listings, check_some_exist, raise_unusable
from ..data.split import usable_hashes
from ..match import Dense, Embeddings, Keys, Pool, Rule, Tfidf, Units
from ..match.spaces.keys import title_keys
from .encode import Encoder
from .explain import Explanation
from .folder import read_folder, write_folder
from .result import MatchResult

TITLES = ('tfidf', 'units', 'same_title')  # spaces made from titles


class Matcher:
    "Encoders, a rule and a catalogue: `match` new listings, `add` and `remove` known ones, `save` to a folder."
    def __init__(
        self,
        rule: Rule,  # How modalities are fused and where the cut is
        catalogue: Embeddings,  # The known listings
        encoder: Encoder | None = None,  # Embeds listings; None: only embeddings can be matched, or titles where the rule needs no more
        columns: Columns | None = None,  # Of a table of listings; its group and fold are not read
        info: dict | None = None,  # Anything json takes: how it was trained, what it scored
    ):
        self._set(rule, encoder, columns, info)
        self._know(catalogue)

    def _set(self, rule, encoder, columns, info):
        self.rule, self.encoder, self.info = rule, encoder, info or {}
        # a matcher reads no groups and no folds
        self.columns = replace(Columns.resolve(columns, {}), group=None, fold=None)

    def _know(self, catalogue):
        self.ids, self.titles, self.trained_on = _names(catalogue.ids, 'catalogue'), catalogue.titles, catalogue.trained_on
        self.spaces = self._spaces(catalogue)

    @classmethod
    def from_df(
        cls,
        df,  # The catalogue: DataFrame of listings
        path,  # Folder of the images
        rule: Rule,  # How modalities are fused and where the cut is
        encoder: Encoder | None,  # Embeds listings
        columns: Columns | None = None,  # As for `Matcher`
        info: dict | None = None,  # As for `Matcher`
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
        trained_on=(),  # Ids of the listings the encoder was trained on
    ) -> tuple['Matcher', pd.DataFrame]:  # The matcher; what was skipped: `id`, `row`, `column`, `reason`
        "A matcher whose catalogue is a table of listings."
        res = cls.__new__(cls)
        res._set(rule, encoder, columns, info)
        emb, skipped = res.embed(df, path, bs, on_error)
        emb.trained_on = np.isin(emb.ids, list(trained_on))
        res._know(emb)
        return res, skipped

    def __len__(self): return len(self.ids)
    def __repr__(self): return f'Matcher({len(self)} listings; {", ".join(map(repr, self.spaces.values()))}; {self.rule})'

    @property
    def inputs(self) -> list[str]:
        "What a new listing must have: 'image', 'title'."
        res = [] if self.encoder is None else list(self.encoder.inputs)
        return [*res, 'title'] if set(TITLES) & set(self.rule.reads) and 'title' not in res else res

    def _spaces(self, emb, like=None):
        "The rule's modalities of `emb` as spaces; `like`: in these vocabularies."
        res = {}
        for k in self.rule.reads:
            if k in TITLES:
                if emb.titles is None: raise InputError(f'the rule needs titles for {k!r}: the listings have none')
                texts = title_keys(emb.titles) if k == 'same_title' else emb.titles
                res[k] = {'tfidf': Tfidf, 'units': Units, 'same_title': Keys}[k](texts) if like is None else like[k].transform(texts)
            elif k == 'phash':
                # a listing without a picture has no hash, and is joined with none
                keys = np.full(len(emb), None, object) if emb.phash is None else emb.phash
                res[k] = Keys(keys) if like is None else like[k].transform(keys)
            elif k not in emb: raise InputError(f'the rule needs the modality {k!r}: the listings have {list(emb)}')
            else:
                if like is not None: like[k]._check_compatible(o := Dense(emb[k], k))
                res[k] = Dense(emb[k], k) if like is None else o
        return res

    def embed(
        self,
        df: pd.DataFrame,  # Listings with the columns that `columns` names
        path='.',  # Folder of the images
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    ) -> tuple[Embeddings, pd.DataFrame]:  # The embeddings; what was skipped: `id`, `row`, `column`, `reason`
        "Read and embed listings; everything that is wrong with them is listed at once."
        id_col, fn_col, text_col, phash_col = (self.columns.id, self.columns.image, self.columns.title, self.columns.phash)
        if on_error not in ('raise', 'skip'): raise InputError(f"on_error={on_error!r}: choose 'raise' or 'skip'")
        inputs = [] if self.encoder is None else self.encoder.inputs
        images, titles = 'image' in self.inputs, 'title' in self.inputs
        if images and not Path(path).is_dir(): raise InputError(f'path={str(path)!r} is not a folder')
        seen: Listings = check_listings(df, id_col=id_col, title_col=text_col if titles else None, min_rows=0, on_error='skip')
        rows = np.setdiff1d(np.arange(len(df)), seen.skipped.row.to_numpy(int))
        texts = df[text_col].iloc[rows].tolist() if titles else None
        files = None
        if images:
            if fn_col not in df: raise InputError(f'df lacks image_col={fn_col!r}; its columns are: {", ".join(map(str, df.columns))}')
            files = [_file(o, path) for o in df[fn_col].iloc[rows]]
        hashes = 'phash' in self.rule.reads and (phash_col is None or phash_col not in df)
        if not inputs or not len(rows): vectors, bad, keys = {}, {}, None
        else: vectors, bad, keys = self.encoder.embed(files, texts if 'title' in inputs else None, bs, hashes and images, stop=on_error == 'raise')
        if images: check_some_exist([bad.get(i) for i in range(len(rows))], fn_col, [str(o) for o in files])
        broken = pd.DataFrame([{'id': df[id_col].iloc[rows[i]], 'row': rows[i], 'column': fn_col,
                                'reason': f'{df[fn_col].iloc[rows[i]]}: {why}' if isinstance(files[i], (str, Path)) else why} for i, why in bad.items()])
        skipped = pd.concat([seen.skipped, broken]).sort_values('row', kind='stable', ignore_index=True) if len(broken) else seen.skipped
        if len(skipped) and on_error == 'raise': raise_unusable(skipped, id_col)
        if not len(rows) - len(bad): raise InputError(f'none of the {len(df)} listings can be used' + (f'; the first: {skipped.reason[0]}' if len(skipped) else ''))
        ok = np.setdiff1d(np.arange(len(rows)), list(bad))
        if 'phash' in self.rule.reads and phash_col is not None and phash_col in df: keys = df[phash_col].iloc[rows].to_numpy(object)
        if keys is not None: keys = usable_hashes(keys)
        return Embeddings({k: v[ok] for k, v in vectors.items()}, df[id_col].iloc[rows[ok]].to_numpy(), titles=None if texts is None else [texts[i] for i in ok],
                          phash=None if keys is None else keys[ok]), skipped

    def match(
        self,
        new=None,  # DataFrame of listings, or their `Embeddings`; None: the catalogue within itself
        path='.',  # Folder of the images
        within: bool = True,  # Also match the new listings among themselves
        catalogue: bool = True,  # Match against the catalogue; a listing in both is taken from `new`
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used (then in `skipped` of the result)
    ) -> MatchResult:
        "The matches of new listings in the catalogue and among themselves."
        if new is None: return self._decide(self.ids, self.spaces, None)
        emb, skipped = (new, None) if isinstance(new, Embeddings) else self.embed(new, path, bs, on_error)
        ids, mine = _names(emb.ids, 'new listings'), self._spaces(emb, self.spaces)
        keep = ~np.isin(self.ids, ids) if catalogue else np.zeros(len(self), bool)
        known = {k: (o if keep.all() else o.take(keep)) if keep.any() else None for k, o in self.spaces.items()}
        return self._decide(np.concatenate([ids, self.ids[keep]]), {k: Pool(o, known[k], within) for k, o in mine.items()}, skipped)

    def _decide(self, ids, spaces, skipped):
        found = self.rule.run(spaces)
        return MatchResult(ids, found.matches, found.neighbors, spaces, self.rule, pd.DataFrame() if skipped is None else skipped, found.trail)

    def explain(
        self,
        posting_id,  # A listing in the catalogue, or among `new`
        new=None,  # DataFrame of listings, or their `Embeddings`; None: the catalogue within itself
        path='.',  # Folder of the images
        df: pd.DataFrame | None = None,  # Where titles and files of the catalogue's pictures stand; default `new`
        **kwargs,  # For `match`
    ) -> Explanation:
        "Why a listing matches what it matches: scores, the step that let each in or took it out, pictures. For many ids match once, then `m.match().explain(id)`."
        result = self.match(new, path, **kwargs)
        tables = [o for o in (df, new) if isinstance(o, pd.DataFrame)]
        titles = {} if self.titles is None else dict(zip(self.ids, self.titles))
        files = {}
        for o in tables:
            names = o[self.columns.id].astype(str)
            if self.columns.title in o: titles |= dict(zip(names, o[self.columns.title].fillna('').astype(str)))
            if self.columns.image in o: files |= {k: _file(v, path) for k, v in zip(names, o[self.columns.image])}
        if isinstance(new, Embeddings) and new.titles is not None: titles |= dict(zip(map(str, new.ids), new.titles))
        return result.explain(posting_id, titles, files)

    def add(
        self,
        new,  # DataFrame of listings, or their `Embeddings`; ids must be new
        path='.',  # Folder of the images
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    ) -> pd.DataFrame:  # What was skipped
        "Put listings into the catalogue. Words that no earlier title held count for nothing in 'tfidf' until a matcher is made anew."
        emb, skipped = (new, pd.DataFrame()) if isinstance(new, Embeddings) else self.embed(new, path, bs, on_error)
        ids = _names(emb.ids, 'new listings')
        if (both := np.isin(ids, self.ids)).any(): raise InputError(f'in the catalogue already: {preview(ids[both])}; remove them first')
        if self.titles is not None and emb.titles is None: raise InputError('the catalogue has titles, the new listings have none')
        mine = self._spaces(emb, self.spaces)
        # all that can fail is done: from here the catalogue changes as a whole
        self.spaces = {k: o.append(mine[k]) for k, o in self.spaces.items()}
        self.ids, self.trained_on = np.concatenate([self.ids, ids]), np.concatenate([self.trained_on, emb.trained_on])
        self.titles = None if self.titles is None else self.titles + emb.titles
        return skipped

    def remove(
        self,
        ids,  # Of listings in the catalogue
    ):
        "Take listings out of the catalogue."
        ids = np.asarray([ids] if isinstance(ids, (str, int)) else ids).astype(str)
        if (unknown := ~np.isin(ids, self.ids)).any(): raise InputError(f'not in the catalogue: {preview(ids[unknown])}')
        keep = ~np.isin(self.ids, ids)
        if not keep.any(): raise InputError('that would leave an empty catalogue')
        self.spaces = {k: o.take(keep) for k, o in self.spaces.items()}
        self.ids, self.trained_on = self.ids[keep], self.trained_on[keep]
        self.titles = None if self.titles is None else [o for o, k in zip(self.titles, keep) if k]

    def _saved_columns(self):
        # the names that folders of this format have had from the first
        return {'id_col': self.columns.id, 'fn_col': self.columns.image, 'text_col': self.columns.title, 'phash_col': self.columns.phash}

    def files(self) -> dict:
        "What `save` writes: file name -> bytes."
        from safetensors.numpy import save as arrays
        from safetensors.torch import save as tensors
        spec, parts = {'rule': self.rule.to_dict(), 'cols': self._saved_columns(), 'info': self.info, 'encoder': None}, {}
        vectors = {f'vectors/{k}': o.vectors for k, o in self.spaces.items() if isinstance(o, Dense)} | {'trained_on': self.trained_on}
        if 'tfidf' in self.spaces:
            words, mine = self.spaces['tfidf'].state()
            parts['tfidf.json'] = _json(words)
            vectors |= {f'tfidf/{k}': v for k, v in mine.items()}
        if self.encoder is not None:
            spec['encoder'] = self.encoder.spec()
            # safetensors takes no channels-last tensor
            weights = {k: v.contiguous().cpu() for k, v in self.encoder.model.state_dict().items() if not k.startswith('heads.')}
            parts['weights.safetensors'] = tensors(weights)
            if self.encoder.tokenizer is not None: parts |= _tokenizer_files(self.encoder.tokenizer)
        keys = {k: o.keys.tolist() for k, o in self.spaces.items() if isinstance(o, Keys)}
        return {'matcher.json': _json(spec), 'listings.json': _json({'ids': self.ids.tolist(), 'titles': self.titles, 'keys': keys}),
                'vectors.safetensors': arrays({k: np.ascontiguousarray(v) for k, v in vectors.items()}), **parts}

    def save(
        self,
        path,  # Folder; one that a matcher was saved to before is replaced
    ):
        "Save as json and safetensors; a kill leaves the old folder or the new one."
        write_folder(Path(path), self.files())

    @classmethod
    def _load(cls, path, device, functions=None):
        check_device(device)
        files, *_ = read_folder(path)
        try: return cls._from_files(files, device, functions)
        except InputError as e: raise InputError(f'{path}: {e}') from e
        except MissingPackage: raise
        # whole files of nonsense, whatever a library says of them
        except Exception as e: raise InputError(f'{path}: its files are whole, but their content does not fit together ({type(e).__name__}: {e})') from e

    @classmethod
    def _from_files(cls, files, device, functions):
        from safetensors.numpy import load as arrays
        from safetensors.torch import load as tensors
        spec, lists, vectors = json.loads(files['matcher.json']), json.loads(files['listings.json']), arrays(files['vectors.safetensors'])
        res = cls.__new__(cls)
        res.rule, res.columns, res.info = Rule.from_dict(spec['rule'], functions), Columns.resolve(spec['cols'], {}, Columns(group=None)), spec['info']
        res.ids, res.titles, res.trained_on = np.asarray(lists['ids'], str), lists['titles'], vectors['trained_on']
        res.spaces = {}
        for k in res.rule.reads:
            if k == 'units': res.spaces[k] = Units(lists['titles'])
            elif k == 'tfidf':
                mine = {o.removeprefix('tfidf/'): v for o, v in vectors.items() if o.startswith('tfidf/')}
                res.spaces[k] = Tfidf.from_state(json.loads(files['tfidf.json']), mine)
            elif k in lists['keys']: res.spaces[k] = Keys(lists['keys'][k])
            else: res.spaces[k] = Dense(vectors[f'vectors/{k}'], k, normalized=True)
        encoder = spec['encoder']
        res.encoder = None
        if encoder is not None:
            tokenizer = None
            if 'title' in encoder:
                tokenizer = _tokenizer({k: v for k, v in files.items() if k.startswith('tokenizer/')})
            res.encoder = Encoder.from_spec(encoder, tensors(files['weights.safetensors']), tokenizer, device)
            for k, o in res.spaces.items():
                if isinstance(o, Dense) and o.dim != res.encoder.widths.get(k):
                    raise InputError(f'{k}: the catalogue holds vectors of {o.dim} numbers, the encoder makes {res.encoder.widths.get(k)}')
        if bad := {k: len(o) for k, o in res.spaces.items() if len(o) != len(res)} | ({} if len(res.trained_on) == len(res) else {'trained_on': len(res.trained_on)}):
            raise InputError(f'{bad} rows for {len(res)} listings')
        return res


def load_matcher(
    path,  # Folder that `Matcher.save` wrote
    device: str | None = None,  # Where the encoders run: 'cpu', 'cuda', ...; default a GPU where there is one
    functions: dict | None = None,  # 'module:name' -> function, for steps of your own in the rule
) -> Matcher:
    "Load a saved matcher; every file's hash is checked before it is read, nothing is unpickled, fastai is not imported."
    import torch
    return Matcher._load(Path(path), device or ('cuda' if torch.cuda.is_available() else 'cpu'), functions)


def _json(o): return json.dumps(o, ensure_ascii=False).encode()


def check_blanks(
    ids,  # Of listings, as text
    what: str,  # What to call them in messages
):
    "Raise `InputError` where an id holds blanks: matches are written blank-separated."
    if bad := [o for o in ids if o.strip() and o.split() != [o]]: raise InputError(f'{what}: ids with blanks in them, which a list of matches is separated by: {preview(map(repr, bad))}')


def _names(ids, what):
    names = np.asarray(ids).astype(str)
    values, counts = np.unique(names, return_counts=True)
    if (counts > 1).any(): raise InputError(f'{what}: ids given twice: {preview(values[counts > 1])}')
    if not all(o.strip() for o in names): raise InputError(f'{what}: an id is empty')
    check_blanks(names, what)
    return names


def _file(o, path):
    "An image in memory as it is, a file name with its folder, None where there is none."
    if isinstance(o, (str, Path)): return Path(path)/o if str(o).strip() else None
    return None if o is None or (isinstance(o, float) and np.isnan(o)) else o


def _tokenizer(files):
    "The tokenizer in `files`, read from a copy of the very bytes that were checked."
    from transformers import AutoTokenizer
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            file = Path(folder)/name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        return AutoTokenizer.from_pretrained(f'{folder}/tokenizer', local_files_only=True, trust_remote_code=False)


def _tokenizer_files(tokenizer):
    "The tokenizer's own files, as transformers writes them."
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {f'tokenizer/{o.relative_to(folder).as_posix()}': o.read_bytes() for o in Path(folder).rglob('*') if o.is_file()}
