"The command that says what a folder holds: `inspect`."
import typer

from .program import MatcherFolder, app, working


@app.command()
def inspect(matcher: MatcherFolder):
    """Check a saved matcher's files against their hashes, and say what it is."""
    with working():
        from ..jobs.describe import describe_matcher
        for line in describe_matcher(matcher): typer.echo(line)
