"The matcher: an encoder, a rule and a catalogue of known listings as one object that matches new listings."
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError, check_device, checks_options
from ..data.columns import Columns
from ..data.picture_store import store_of
from ..data.read import join_titles, text_columns_of, with_names
from ..match import Embeddings, Pool, Rule
from ..match.cells import is_among, texts_of
from ..match.embeddings import check_made_alike
from ..match.prepared import LastPrepared
from ..match.spaces.pool import holds_keys
from ..match.words import threshold_in_words
from .cropped import AnyEncoder
from .explain import Explanation
from .folder import (
    Parts,
    check_readable,
    keep_others,
    pack,
    read_matcher_files,
    told_with_folder,
    unpack,
    write_matcher_files,
)
from .known import KnownListings, check_ids
from .listings import embed_listings, image_files_of, needed_inputs
from .result import MatchResult
from .runtime import check_runtime


class Matcher:
    """Encoder, rule and catalogue: `match` new listings, `add` and `remove` known ones, `save` to a folder.

    Raises `InputError` where the rule or the catalogue's embeddings were made with other settings (test-time
    augmentation, size of the pictures) than the encoder's, as far as these are known.
    """
    def __init__(
        self,
        rule: Rule,  # How modalities are fused, and the threshold
        catalogue: Embeddings | KnownListings,  # The known listings
        # Embeds listings; None: only `Embeddings` can be matched, or titles
        encoder: AnyEncoder | None = None,
        columns: Columns | None = None,  # Of a table of listings; its group and fold aren't read
        info: dict | None = None,  # Anything json takes: how it was trained, what it scored
    ):
        self.rule = rule
        self.encoder = encoder
        self.info = info or {}
        self.columns = _without_groups(columns)
        check_made_alike(catalogue.made_with, self._settings(catalogue), 'catalogue: embeddings')
        _check_rule(rule, self._settings(catalogue))
        is_ready = isinstance(catalogue, KnownListings)
        self.catalogue = catalogue if is_ready else KnownListings.from_embeddings(catalogue, rule)
        self._last_prepared = LastPrepared()

    @classmethod
    def from_df(
        cls,
        df,  # The catalogue: DataFrame of listings
        path,  # Folder of the images
        rule: Rule,  # How modalities are fused, and the threshold
        encoder: AnyEncoder | None,  # Embeds listings
        columns: Columns | None = None,  # Of `df` and of later tables
        info: dict | None = None,  # Anything json takes: how it was trained, what it scored
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
        trained_on=(),  # Ids of the listings that the encoder was trained on, text or numbers
    ) -> tuple['Matcher', pd.DataFrame]:  # The matcher; what was skipped: `id`, `row`, `column`, `reason`
        "A matcher whose catalogue is a table of listings, which are read and embedded."
        columns = _without_groups(columns)
        # before hours of embedding
        if encoder is not None: _check_rule(rule, encoder.made_with)
        embeddings, skipped = embed_listings(df, path, columns, rule, encoder, bs, on_error)
        embeddings.trained_on = is_among(embeddings.ids, trained_on)
        return cls(rule, embeddings, encoder, columns, info), skipped

    def __len__(self): return len(self.catalogue)
    def __repr__(self):
        return f'Matcher({len(self)} listings; {", ".join(map(repr, self.spaces.values()))}; {self.rule})'

    @property
    def ids(self) -> np.ndarray:
        "The ids of the known listings, str (n,)."
        return self.catalogue.ids

    @property
    def titles(self) -> list | None:
        "The titles of the known listings, or None."
        return self.catalogue.titles

    @property
    def trained_on(self) -> np.ndarray:
        "Which of the known listings the encoder was trained on, bool (n,)."
        return self.catalogue.trained_on

    @property
    def spaces(self) -> dict:
        "Modality -> space of the known listings."
        return self.catalogue.spaces

    @property
    def inputs(self) -> list[str]:
        "What a new listing must have: 'image', 'title', or both."
        return needed_inputs(self.rule, self.encoder)

    def embed(
        self,
        df: pd.DataFrame,  # Listings with the columns that `columns` names
        path='.',  # Folder of the images
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    ) -> tuple[Embeddings, pd.DataFrame]:  # The embeddings; what was skipped: `id`, `row`, `column`, `reason`
        "Read and embed listings; everything that is wrong with them is listed at once."
        return embed_listings(df, path, self.columns, self.rule, self.encoder, bs, on_error)

    def _embedded(self, new_listings, path, bs, on_error):
        "Embeddings of new listings, which come as a table or are embedded already; and what was skipped."
        if not isinstance(new_listings, Embeddings): return self.embed(new_listings, path, bs, on_error)
        check_made_alike(new_listings.made_with, self._settings(self.catalogue), 'new listings: embeddings')
        # how several pictures are compared
        check_made_alike(new_listings.made_with, self.rule.made_with, 'new listings: embeddings')
        return new_listings, pd.DataFrame()

    def _settings(self, catalogue):
        "How listings are embedded here: by the encoder, or, without one, as the catalogue's embeddings were."
        return catalogue.made_with if self.encoder is None else self.encoder.made_with

    def match(
        self,
        new=None,  # DataFrame of listings, or their `Embeddings`; None: the known listings among themselves
        path='.',  # Folder of the images
        within: bool = True,  # Also match the new listings among themselves
        catalogue: bool = True,  # Match against the known listings; one that is in both is taken from `new`
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' unusable listings (they are in `skipped` of the result)
        threshold: float | None = None,  # In place of the rule's, whatever is searched; None: the rule's
    ) -> MatchResult:
        """The matches of new listings among the known ones and among themselves.

        To try several thresholds embed once, `embeddings, _ = matcher.embed(df)`, and match the embeddings.
        """
        rule = self.rule if threshold is None else self.rule.with_threshold(threshold)
        if new is None: return self._decide(self.ids, self.spaces, pd.DataFrame(), rule)
        embeddings, skipped = self._embedded(new, path, bs, on_error)
        new_ids = check_ids(embeddings.ids, 'new listings')
        new_spaces = self.catalogue.spaces_of(embeddings)
        is_kept = ~np.isin(self.ids, new_ids) if catalogue else np.zeros(len(self), bool)
        known = {}
        if is_kept.any(): known = self.spaces if is_kept.all() else self.catalogue.take(is_kept).spaces
        pools = {modality: Pool(space, known.get(modality), within) for modality, space in new_spaces.items()}
        # where some are left out it is another catalogue
        prepared = self._last_prepared.of(rule, known, len(embeddings)) if known is self.spaces else None
        return self._decide(np.concatenate([new_ids, self.ids[is_kept]]), pools, skipped, rule, prepared)

    def _decide(self, listing_ids, spaces, skipped, rule, prepared=None):
        decision = rule.run(spaces, prepared)
        searched = next(iter(spaces.values())).searched
        placeholders = {modality: spaces[modality].overused_keys() for modality in self.rule.modalities
                        if holds_keys(spaces[modality])}
        setting = f'threshold {rule.threshold:g}, as it was given'
        if rule is self.rule: setting = threshold_in_words(rule, searched, _chosen_among(self.info))
        return MatchResult(listing_ids, decision.matches, decision.neighbors, spaces, decision.rule, skipped,
                           decision.trail, decision.pairs, setting, decision.cut_short, placeholders)

    @checks_options(match)
    def explain(
        self,
        posting_id,  # A known listing, or one of `new`
        new=None,  # DataFrame of listings, or their `Embeddings`; None: the known listings among themselves
        path='.',  # Folder of the images
        df: pd.DataFrame | None = None,  # Table with titles and files of the known listings, to show them
        df_path=None,  # Folder of the images of `df`; default `path`
        **kwargs,  # For `match`
    ) -> Explanation:
        """Why a listing matches what it matches: scores, the step that decided on each candidate, pictures.

        It matches all listings for that; to explain many, match once and call `explain` of the result.
        """
        result = self.match(new, path, **kwargs)
        titles = {} if self.titles is None else dict(zip(self.ids, self.titles))
        files = {}
        for table, folder in ((df, path if df_path is None else df_path), (new, path)):
            if not isinstance(table, pd.DataFrame): continue
            table = with_names(table, self.columns.by_keyword().values())
            listing_ids = texts_of(table[self.columns.id])
            if any(column in table for column in text_columns_of(self.columns)):
                table, columns = join_titles(table, self.columns)
                titles |= dict(zip(listing_ids, table[columns.title].fillna('').astype(str)))
            if self.columns.image in table:
                image_files = [image_files_of(cell, folder) for cell in table[self.columns.image]]
                files |= dict(zip(listing_ids, image_files))
        if isinstance(new, Embeddings) and new.titles is not None:
            titles |= dict(zip(texts_of(new.ids), new.titles))
        return result.explain(posting_id, titles, files)

    def add(
        self,
        new,  # DataFrame of listings, or their `Embeddings`; their ids must not be known yet
        path='.',  # Folder of the images
        bs: int = 64,  # Listings a batch
        on_error: str = 'raise',  # 'raise', or 'skip' listings that can't be used
    ) -> pd.DataFrame:  # What was skipped: `id`, `row`, `column`, `reason`
        """Put listings into the catalogue, all or, where an error is raised, none.

        TF-IDF keeps its weights until a new matcher is made: n-grams that no earlier title held get that of
        the rarest known ones.
        """
        embeddings, skipped = self._embedded(new, path, bs, on_error)
        self.catalogue = self.catalogue.append(embeddings)
        return skipped

    def remove(
        self,
        ids,  # One id or several, of known listings
    ):
        "Take listings out of the catalogue; raises `InputError` for unknown ids, or if none would be left."
        self.catalogue = self.catalogue.without(ids)

    def files(self) -> dict:
        "What `save` writes: file name -> bytes."
        return pack(Parts(self.rule, self.catalogue, self.encoder, self.columns, self.info))

    def save(
        self,
        path,  # Folder; one that a matcher was saved to before is replaced
    ):
        """Save as json and safetensors; a kill meanwhile leaves the old matcher or the new one.

        Raises `InputError` before anything is written where the encoder, read back, would embed otherwise.
        """
        files = self.files()
        check_readable(self.encoder, files)
        write_matcher_files(Path(path), files)


def load_matcher(
    path,  # Folder that `Matcher.save` wrote
    device: str | None = None,  # Where the encoder runs: 'cpu', 'cuda', ...; default a GPU where there is one
    functions: dict | None = None,  # 'module:name' -> function, for steps of your own in the rule
    # What runs the encoder: 'torch', or on the CPU 'onnx' and 'int8', which `fastmatch export` makes: several
    # times as fast, and no model of torch is built
    runtime: str = 'torch',
    # `PictureStore` or its folder, True for one of this user: pictures of listings are decoded once, for all
    # calls, and for dataloaders with this `store` that resize them alike
    picture_store=None,
) -> Matcher:
    """Load a saved matcher: hashes are checked first, nothing is unpickled, fastai isn't imported.

    Raises `InputError` naming the file that is missing, damaged, or doesn't fit the others, and
    `MissingPackage` where onnxruntime is needed and isn't installed.
    """
    check_runtime(runtime)
    device = _device(device, runtime)
    manifest, files = read_matcher_files(path, runtime)
    with told_with_folder(path):
        parts = unpack(files, device, functions, runtime)
        if parts.encoder is not None:
            keep_others(parts.encoder, path, manifest, files)
            parts.encoder.picture_store = store_of(picture_store)
        return Matcher(parts.rule, parts.catalogue, parts.encoder, parts.columns, parts.info)


def _device(device, runtime):
    "Where an encoder runs; raises `InputError` for a device that its runtime can't use."
    import torch
    if runtime != 'torch':
        if device not in (None, 'cpu'):
            raise InputError(f'device={device!r}: runtime={runtime!r} runs on the CPU')
        return 'cpu'
    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    check_device(device)
    return device


def _chosen_among(info):
    "How many listings the rule of an earlier version was chosen among, as its figures say; None: unknown."
    heldout_rows = info.get('heldout')
    try: return int(heldout_rows['fused']['n'])
    # a matcher made by hand may hold anything as its info
    except (KeyError, TypeError, ValueError): return None


def _without_groups(columns):
    # a matcher reads no groups and no folds
    return replace(Columns.resolve(columns, {}), group=None, fold=None)


def _check_rule(rule, settings):
    # rules of earlier versions don't hold the settings that they were chosen with
    check_made_alike(rule.made_with, settings, 'rule: chosen on embeddings')
