"The job behind `fastmatch export`: faster runtimes for a saved matcher, checked and measured first."
from pathlib import Path

import numpy as np
import pandas as pd

from ..core import InputError
from ..data.table import read_table, recognise
from ..match import Embeddings
from ..matcher import CropEncoder, Matcher, SeveralEncoders, load_matcher
from ..matcher.kept import KeptFiles, weights_of
from ..matcher.listings import image_files_of
from ..matcher.onnx_export import onnx_files
from ..matcher.quantize import int8_files
from ..matcher.runtime import OnnxEncoder
from .match import new_listings
from .options import MAX_LOSS
from .runtime_loss import RuntimeLoss, check_alike, runtime_loss

CALIBRATED = 256  # listings whose pictures set the ranges of activations
CHECKED = 256  # listings on which ONNX is compared with torch
MEASURED = 5_000  # listings on which a loss is measured
CALIBRATED_SHARE = .1  # of the groups, where the encoder was trained on no listing of the table


def export_matcher(
    folder,  # Of a saved matcher; it gets the new files
    # Listings with the matcher's columns, of its catalogue or others: those that the encoder was trained on
    # calibrate, the others measure the loss. None: the titles of the catalogue, for a matcher of titles alone
    listings: pd.DataFrame | None = None,
    images='.',  # Folder of the images
    *,
    int8: bool = True,  # Also with 8-bit weights
    max_loss: float = MAX_LOSS,  # Largest loss of int8 in row F1: above it nothing is written
    group_col: str | None = None,  # Says which listings are the same product; None: by its usual names
    bs: int = 64,  # Listings a batch
    seed: int = 0,  # Of the listings that are drawn
    echo=print,  # Called with a line of text at each stage
) -> dict:  # What `info['runtimes']` of the matcher then holds
    """Add ONNX graphs of its encoder to a saved matcher: `load_matcher(folder, runtime='int8')` uses them.

    ONNX in float32 is compared with torch on real listings, and int8 is measured on listings that the
    encoder wasn't trained on: the loss in row F1 where the table has groups, otherwise how far the matches
    agree. Raises `InputError`, and leaves the matcher as it was, where embeddings differ by 1e-4 or the loss
    is above `max_loss`.
    """
    matcher = load_matcher(folder, 'cpu')
    if matcher.encoder is None: raise InputError(f'{folder}: the matcher has no encoder to export')
    if isinstance(matcher.encoder, (SeveralEncoders, CropEncoder)):
        raise InputError(f'{folder}: the matcher holds several encoders, which torch runs alone; '
                         'distil them to one first')
    group_col = column_of_groups(listings, group_col)
    if int8 and group_col is None: echo('no column of groups: what int8 loses in row F1 will not be known')
    echo('embedding with torch ...')
    real = _Listings(matcher, listings, images, group_col, bs)
    by_torch = real.embedded(matcher.encoder)
    echo('exporting to ONNX ...')
    files = onnx_files(matcher.encoder)
    checked = np.random.default_rng(seed).permutation(len(by_torch))[:CHECKED]
    by_onnx = real.embedded(_encoder(matcher, files, 'onnx'), np.sort(checked))
    difference = check_alike(by_torch.take(np.sort(checked)), by_onnx)
    echo(f'  {len(checked)} listings: embeddings are those of torch to {difference:.1g}')
    runtimes = {'onnx': {'listings': len(checked), 'largest_difference': float(f'{difference:.3g}')}}
    if int8:
        calibrating, measuring = real.parts(by_torch, seed)
        echo('quantizing to int8 ...')
        files |= int8_files(files, matcher.encoder, real.pictures(calibrating))
        by_int8 = real.embedded(_encoder(matcher, files, 'int8'), measuring)
        loss = runtime_loss(matcher, by_torch.take(measuring), by_int8, seed)
        echo(f'  int8: {loss.in_words()}')
        refuse_loss(loss, max_loss)
        runtimes['int8'] = {**loss.to_dict(), 'max_loss': max_loss, 'calibrated_on': len(calibrating)}
    matcher.encoder.kept = KeptFiles.of_export(files, weights_of(matcher.encoder))
    matcher.info['runtimes'] = runtimes
    matcher.save(folder)
    sizes = ', '.join(f'{name} {len(content) / 1e6:.1f} MB' for name, content in files.items())
    echo(f'wrote {Path(folder)}: {sizes}')
    return runtimes


def export_file(
    folder,  # Of a saved matcher
    listings=None,  # File of listings: CSV, TSV, Parquet, spreadsheet; None: the catalogue's titles
    images=None,  # Folder of the images
    encoding: str = 'utf-8',  # Of a text table
    **kwargs,  # For `export_matcher`
) -> dict:  # As `export_matcher` gives it
    "`export_matcher` with a file of listings, whose columns are found by their usual names."
    table = listings_of_file(folder, listings, images, encoding)
    return export_matcher(folder, table, images or '.', **kwargs)


def listings_of_file(
    folder,  # Of a saved matcher
    listings=None,  # File of listings, or None
    images=None,  # Folder of the images
    encoding: str = 'utf-8',  # Of a text table
) -> pd.DataFrame | None:  # With the matcher's columns
    "A file of listings whose columns are found by their usual names."
    if listings is None: return None
    names = dict.fromkeys(('id_col', 'image_col', 'title_col', 'phash_col', 'source_col'))
    return new_listings(read_table(listings, encoding), load_matcher(folder, 'cpu'), names, images)


def column_of_groups(
    listings: pd.DataFrame | None,  # As they were read
    group_col: str | None,  # As a user named it; None: by its usual names
) -> str | None:  # None where there is none
    "The column that says which listings are the same product; raises `InputError` for one that isn't there."
    if listings is None: return None
    required = () if group_col is None else ('group',)
    return recognise(listings, required, group_col=group_col).group


def refuse_loss(
    loss: RuntimeLoss,  # Of a runtime
    max_loss: float,  # In row F1
):
    "Raise `InputError` where a runtime loses more than is allowed."
    if loss.largest is not None and loss.largest > max_loss:
        raise InputError(f'int8 is not written: it loses {loss.largest:.4f} in row F1, and '
                         f'max_loss={max_loss} is allowed')


def _encoder(matcher, files, runtime):
    encoder = matcher.encoder
    return OnnxEncoder.from_files(encoder.spec(), files, encoder.tokenizer, runtime)


class _Listings:
    "Real listings, of a table or of the catalogue's titles, that can be embedded by several encoders."
    def __init__(self, matcher, table, images, group_col, bs):
        self.matcher = matcher
        self.images = images
        self.bs = bs
        self.group_col = group_col
        self.table = titles_of(matcher) if table is None else table.reset_index(drop=True)
        self.whole = None

    def embedded(self, encoder, rows=None):
        "`Embeddings` of the listings, or of some of them by their row numbers."
        if self.whole is None:
            # what can't be read is left out, once for all runtimes
            whole, skipped = self._embed(encoder, self.table, 'skip')
            if len(skipped): self.table = self.table.drop(index=skipped.row).reset_index(drop=True)
            if self.group_col is not None:
                whole = Embeddings(whole, whole.ids, whole.titles, self.table[self.group_col].to_numpy(),
                                   phash=whole.phash)
            self.whole = whole
            return whole
        table = self.table if rows is None else self.table.iloc[rows]
        return self._embed(encoder, table, 'raise')[0]

    def _embed(self, encoder, table, on_error):
        other = Matcher(self.matcher.rule, self.matcher.catalogue, encoder, self.matcher.columns)
        return other.embed(table, self.images, self.bs, on_error)

    def pictures(self, rows):
        "The picture files of some listings; none for a matcher of titles."
        column = self.matcher.columns.image
        if 'image' not in self.matcher.encoder.inputs: return []
        return [file for cell in self.table[column].iloc[rows] for file in image_files_of(cell, self.images)]

    def parts(self, embeddings, seed):
        "Row numbers of the listings to calibrate on, and of those to measure on; none is both."
        trained_on = np.isin(embeddings.ids.astype(str), self.matcher.ids[self.matcher.trained_on])
        rng = np.random.default_rng(seed)
        groups = np.arange(len(embeddings)) if embeddings.groups is None else embeddings.groups
        if 'image' not in self.matcher.encoder.inputs: calibrating = np.array([], int)
        elif trained_on.any(): calibrating = np.flatnonzero(trained_on)
        else: calibrating = np.flatnonzero(drawn_groups(groups, CALIBRATED_SHARE * len(groups), rng))
        measuring = np.setdiff1d(np.flatnonzero(~trained_on), calibrating)
        if len(measuring) > MEASURED: measuring = measuring[drawn_groups(groups[measuring], MEASURED, rng)]
        if len(measuring) < 2:
            raise InputError('int8: the encoder was trained on all of the listings: to measure what int8 '
                             'loses give some that it was not trained on')
        return np.sort(rng.permutation(calibrating)[:CALIBRATED]), measuring


def drawn_groups(
    groups: np.ndarray,  # (n,)
    n_listings: float,  # How many listings to draw
    rng: np.random.Generator,
) -> np.ndarray:  # bool (n,)
    "Whole groups at random until they hold so many listings."
    codes = np.unique(groups.astype(str), return_inverse=True)[1]
    order = rng.permutation(codes.max() + 1)
    n_drawn = int(np.searchsorted(np.bincount(codes)[order].cumsum(), n_listings)) + 1
    return np.isin(codes, order[:n_drawn])


def titles_of(
    matcher: Matcher,
) -> pd.DataFrame:  # With the matcher's columns of ids and titles
    "The catalogue's titles as a table; raises `InputError` where the matcher reads more than titles."
    columns = matcher.columns
    reads_phash = 'phash' in matcher.rule.reads
    reads_more = 'image' in matcher.inputs or columns.source or columns.fields or reads_phash
    if reads_more or matcher.titles is None or not isinstance(columns.title, str):
        raise InputError('give a table of listings: the matcher reads more than its catalogue keeps, '
                         'which is one title a listing')
    return pd.DataFrame({columns.id: matcher.ids, columns.title: matcher.titles})
