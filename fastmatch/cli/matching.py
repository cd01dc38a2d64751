"Commands that use a matcher, or compare two tables: `match`, `link` and `export`."
from pathlib import Path
from typing import Annotated

import typer

from ..core import InputError
from ..jobs.options import MAX_LOSS
from .program import (
    Batch,
    Device,
    Encoding,
    IdCol,
    ImageCol,
    MatcherFolder,
    NewFields,
    NewImages,
    OnError,
    PhashCol,
    Seed,
    SourceCol,
    Table,
    TitleCol,
    app,
    one_or_several,
    option,
    working,
)

MatchesFile = Annotated[Path, option('File to write: posting_id, matches.', '--out', '-o')]
Scores = Annotated[bool, option(
    'Also write a .pairs.csv: the scores of each match by modality, and the reason.', '--scores')]
Alone = Annotated[bool, option(
    'Match the new listings among themselves only, not with the catalogue.', '--alone')]
Threshold = Annotated[float | None, option(
    "Score from which listings match; default: the rule's, for the number of listings searched.")]
Runtime = Annotated[str, option(
    "What runs the encoder: torch, or onnx or int8 where `fastmatch export` has made them.")]
Rows = Annotated[int | None, option(
    'Match in pieces of so many listings, with the catalogue alone, and write CSV or Parquet: 4096, say.')]
Store = Annotated[Path | None, option(
    'With --rows: SQLite file that keeps embeddings, so that another run embeds only what is new.')]
PictureStoreFolder = Annotated[Path | None, option(
    'Folder that keeps decoded and resized pictures, so that another run decodes only what is new.')]
Vectors = Annotated[Path | None, option(
    'Vectors made elsewhere, a row a listing: .npz, an array for each modality.')]

PairsFile = Annotated[Path, option('File to write: left_id, right_id, probability.', '--out', '-o')]
Known = Annotated[Path | None, option('Table of known pairs: left_id, right_id, label (1 or 0).')]
LinkFields = Annotated[list[str] | None, option(
    'A column to compare, NAME:KIND; kinds are text, code, category, number (also with a unit, '
    'price:number:EUR). May be given several times; default: recognised.')]
LinkThreshold = Annotated[float | None, option(
    'Probability from which a pair matches; default: the best on the known pairs, .5 without any.')]
How = Annotated[str, option(
    'one-to-one, one-to-many (a listing of the first table may have several), many-to-one or free.')]


@app.command()
def match(
    matcher: MatcherFolder,
    listings: Table,
    images: NewImages = None,
    out: MatchesFile = Path('matches.csv'),
    scores: Scores = False,
    alone: Alone = False,
    threshold: Threshold = None,
    embeddings: Vectors = None,
    id_col: IdCol = None,
    image_col: ImageCol = None,
    title_col: TitleCol = None,
    phash_col: PhashCol = None,
    source_col: SourceCol = None,
    field: NewFields = None,
    encoding: Encoding = 'utf-8',
    on_error: OnError = 'raise',
    bs: Batch = 64,
    device: Device = None,
    runtime: Runtime = 'torch',
    rows: Rows = None,
    store: Store = None,
    picture_store: PictureStoreFolder = None,
):
    """Match new listings with a matcher's catalogue and among themselves; fastai is not needed for it.

    With --rows a table of any length is matched with the catalogue alone, in bounded memory; killed, the same
    call goes on where it was.
    """
    typer.echo('loading ...')
    with working():
        from ..data.table import read_table
        from ..jobs.match import check_output, match_in_pieces, new_listings, write_matches
        from ..matcher import load_matcher
        check_output(out, listings)
        column_names = dict(id_col=id_col, image_col=image_col, title_col=one_or_several(title_col),
                            phash_col=phash_col, source_col=source_col)
        if store is not None and rows is None: raise InputError('--store: is for matching in pieces, --rows')
        if rows is not None:
            if scores or alone or embeddings is not None or threshold is not None:
                raise InputError('--rows: takes no --scores, --alone, --threshold or --embeddings')
            loaded = load_matcher(matcher, device, runtime=runtime, picture_store=picture_store)
            match_in_pieces(loaded, listings, out, images, column_names, field or (), rows=rows, store=store,
                            encoding=encoding, bs=bs, on_error=on_error, echo=typer.echo)
            return
        listing_table = read_table(listings, encoding)
        loaded = load_matcher(matcher, device, runtime=runtime, picture_store=picture_store)
        new_rows = new_listings(listing_table, loaded, column_names, images, embeddings, field or ())
        typer.echo(f'matching {len(new_rows):,} listings ...')
        result = loaded.match(new_rows, images or '.', catalogue=not alone, bs=bs, on_error=on_error,
                              threshold=threshold)
        # a rule that does not know this pool may do badly here: said beside the result, not in it
        typer.echo(result.setting, err=loaded.rule.pools is None and threshold is None)
        for note in result.notes: typer.echo(note, err=True)
        written_files = write_matches(result, out, scores)
        for skipped in result.skipped.itertuples():
            typer.echo(f'skipped row {skipped.row} ({skipped.id}), {skipped.column}: {skipped.reason}',
                       err=True)
        n_matches = len(result.matches.ids) - len(result)
        typer.echo(f'{len(result)} listings, {n_matches} matches among {len(result.ids)}; '
                   f'wrote {" and ".join(map(str, written_files))}')



@app.command()
def link(
    left: Table,
    right: Annotated[Path, typer.Argument(help="The other shop's table.", show_default=False)],
    out: PairsFile = Path('links.csv'),
    known: Known = None,
    field: LinkFields = None,
    how: How = 'one-to-one',
    threshold: LinkThreshold = None,
    id_col: IdCol = None,
    right_id_col: IdCol = None,
    encoding: Encoding = 'utf-8',
    seed: Seed = 0,
):
    """Match the listings of two tables against each other: two shops, a shop and a catalogue.

    Columns that both tables have are compared by what they hold: texts, codes, categories, numbers. Without
    --known it learns from the tables themselves; with some labelled pairs it says what it is worth.
    """
    typer.echo('loading ...')
    with working():
        from ..jobs.link import link_files
        link_files(left, right, out, known, field, (id_col, right_id_col), how, threshold, encoding, seed,
                   typer.echo)



@app.command()
def export(
    matcher: MatcherFolder,
    onnx: Annotated[bool, option('Float32 graphs: answers as those of torch.', '--onnx')] = False,
    int8: Annotated[bool, option('Also graphs with 8-bit weights: faster still.', '--int8')] = False,
    static: Annotated[Path | None, option(
        'Folder for another matcher, of titles alone, whose encoder is a vector for each token: far faster, '
        'and less exact.')] = None,
    listings: Annotated[Path | None, option(
        'Table of listings, with groups where they are known: those that the encoder was trained on '
        "calibrate, the others measure what int8 and static lose. Default: the catalogue's titles.")] = None,
    images: NewImages = None,
    max_loss: Annotated[float, option(
        'Largest loss of int8 in row F1: above it nothing is written.')] = MAX_LOSS,
    group_col: Annotated[str | None, option('Column of groups; default: by its usual names.')] = None,
    encoding: Encoding = 'utf-8',
    bs: Batch = 64,
    seed: Seed = 0,
):
    """Add faster runtimes to a saved matcher, by the extra [onnx], or make a static one of it.

    Embeddings of --onnx are checked against those of torch; what --int8 and --static lose in row F1 is
    measured on listings that the encoder was not trained on. `fastmatch match --runtime int8` uses the
    runtimes; what --static writes is a matcher like any other.
    """
    with working():
        if not onnx and not int8 and static is None:
            raise InputError('say what to export: --onnx, --int8, --static FOLDER or several')
        from ..jobs.export import export_file, listings_of_file
        if onnx or int8:
            export_file(matcher, listings, images, encoding, int8=int8, max_loss=max_loss,
                        group_col=group_col, bs=bs, seed=seed, echo=typer.echo)
        if static is None: return
        from ..jobs.static import static_matcher
        static_matcher(matcher, static, listings_of_file(matcher, listings, images, encoding),
                       group_col=group_col, bs=bs, seed=seed, echo=typer.echo)
