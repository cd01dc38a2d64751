"Commands of a catalogue that lives: `add`, `remove`, `groups`, `why`, `split`, `verdicts`, `events`, `undo`."
from pathlib import Path
from typing import Annotated

import typer

from ..core import InputError
from .program import Device, Encoding, NewImages, OnError, Table, app, option, working

CatalogueFile = Annotated[Path, typer.Argument(help="A catalogue's file.", show_default=False)]
DecidedBy = Annotated[Path | None, option('Folder of the matcher; default: the one last used with it.',
                                           '--matcher')]
OnKnown = Annotated[str, option("Ids that are there: 'raise', 'skip' or 'replace'.")]
DryRun = Annotated[bool, option('Say what would change, and keep nothing.', '--dry-run')]
Who = Annotated[str, option('Who does it, for the record.')]
Reason = Annotated[str, option('Why, for the record.')]
Ids = Annotated[list[str], typer.Argument(help='Ids of listings.', show_default=False)]
GroupsFile = Annotated[Path, option('File to write: posting_id, group.', '--out', '-o')]


@app.command()
def add(
    catalogue: CatalogueFile,
    listings: Table,
    matcher: DecidedBy = None,
    images: NewImages = None,
    on_known: OnKnown = 'raise',
    on_error: OnError = 'raise',
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
    encoding: Encoding = 'utf-8',
    device: Device = None,
):
    """Add listings to a catalogue that lives: a file of groups whose numbers stay. A new file is made.

    Each listing joins a group, opens one, or brings groups together, of which the oldest keeps its number.
    A column of groups is not read: what you know of them goes in by `fastmatch verdicts`. After a kill the
    same call with --on-known skip goes on.
    """
    with working():
        from ..jobs.catalogue import add_file, open_catalogue
        with open_catalogue(catalogue, matcher, device, create=not dry_run) as opened:
            add_file(opened, listings, images, encoding=encoding, dry_run=dry_run, on_known=on_known,
                     on_error=on_error, who=who, reason=reason, echo=typer.echo)
            typer.echo(repr(opened))



@app.command()
def remove(
    catalogue: CatalogueFile,
    ids: Annotated[list[str], typer.Argument(help='Ids, or one table with a column posting_id.')],
    matcher: DecidedBy = None,
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
):
    "Take listings out of a catalogue; a group that only they held together falls apart."
    with working():
        from ..jobs.catalogue import open_catalogue, remove_listings
        with open_catalogue(catalogue, matcher) as opened:
            typer.echo(repr(remove_listings(opened, ids, who=who, reason=reason, dry_run=dry_run)))



@app.command()
def groups(catalogue: CatalogueFile, out: GroupsFile = Path('groups.csv')):
    "Write every listing of a catalogue with the number of its group."
    with working():
        from ..jobs.catalogue import Catalogue, write_table
        with Catalogue(catalogue) as opened: typer.echo(write_table(opened.groups(), out, catalogue))



@app.command()
def why(
    catalogue: CatalogueFile,
    first: Annotated[str, typer.Argument(help='Id of a listing.', show_default=False)],
    second: Annotated[str | None, typer.Argument(help='Id of another one.')] = None,
):
    "Say why a listing is in its group, or why two listings are in one group or in two."
    with working():
        from ..jobs.catalogue import explain
        typer.echo(repr(explain(catalogue, first, second)))



@app.command()
def split(
    catalogue: CatalogueFile,
    group: Annotated[int, typer.Argument(help='Number of a group.', show_default=False)],
    ids: Ids,
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
):
    "Part listings from the rest of their group; later groupings obey it."
    with working():
        from ..jobs.catalogue import Catalogue
        with Catalogue(catalogue) as opened:
            typer.echo(repr(opened.split(group, ids, who=who, reason=reason, dry_run=dry_run)))



@app.command()
def verdicts(
    catalogue: CatalogueFile,
    table: Annotated[Path | None, typer.Argument(help='To read: first, second, same (1 or 0).')] = None,
    out: Annotated[Path | None, option('File to write: what people said so far.', '--out', '-o')] = None,
    close_calls: Annotated[
        int, option('Write so many pairs that nobody judged, nearest to the threshold.')] = 0,
    dry_run: DryRun = False,
    who: Who = '',
    reason: Reason = '',
):
    "Read what people say of pairs, which every grouping obeys; or write it, or the pairs to ask them about."
    with working():
        from ..jobs.catalogue import Catalogue, read_verdicts, write_table
        if table is None and out is None: raise InputError('give a table to read, or --out FILE to write')
        with Catalogue(catalogue) as opened:
            if table is not None:
                said = read_verdicts(table)
                typer.echo(repr(opened.verdicts_in(said, who=who, reason=reason, dry_run=dry_run)))
            if out is not None:
                told = opened.verdicts()
                # an empty column to fill in
                if close_calls: told = opened.close_calls(close_calls).assign(same='')
                typer.echo(write_table(told, out, catalogue))



@app.command()
def events(
    catalogue: CatalogueFile,
    last: Annotated[int | None, option('Only so many, the last ones.')] = None,
    out: Annotated[Path | None, option('File to write; default: print them.', '--out', '-o')] = None,
):
    "List what happened to a catalogue, event by event: the numbers that `undo` takes."
    with working():
        from ..jobs.catalogue import write_events
        typer.echo(write_events(catalogue, out, last))



@app.command()
def undo(
    catalogue: CatalogueFile,
    event: Annotated[int, typer.Argument(help='Number of an event: `fastmatch events`.',
                                         show_default=False)],
    matcher: DecidedBy = None,
    dry_run: DryRun = False,
):
    "Take an event of a catalogue back: what came goes, what went comes back, what was said counts no more."
    with working():
        from ..jobs.catalogue import open_catalogue
        with open_catalogue(catalogue, matcher) as opened:
            typer.echo(repr(opened.undo(event, dry_run=dry_run)))
