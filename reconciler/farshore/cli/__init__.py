"""The `farshore` command line: a thin, friendly face of the API.

It knows the API and the terminal; it never opens the store and never reaches a database. Errors end here: one place
prints them and chooses the exit code.
"""

import json
import os
import sys

import typer

from farshore.cli import access, declare, doctor, events, roles, serve, status
from farshore.cli.terminal import Output, out
from farshore_schema import __version__
from farshore_schema.errors import TABLE, FarshoreError

app = typer.Typer(
    name="farshore",
    help="Disaster recovery you declare: see, move and check protected pairs.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog="Exit codes: `farshore exit-codes`. Every command takes --json. Colours respect NO_COLOR.",
)
for part in (serve, declare, status, roles, doctor, events):
    part.register(app)
app.add_typer(access.tokens, name="token")
app.add_typer(access.agents, name="agents")


def _version(value: bool) -> None:
    if value:
        typer.echo(f"farshore {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and end."
    ),
) -> None:
    """Disaster recovery you declare."""


@app.command("exit-codes")
def exit_codes(as_json: bool = Output) -> None:
    """Print every error code with its HTTP status and exit code."""
    rows = [
        {"code": code, "status": row.status, "exit": row.exit, "meaning": row.meaning} for code, row in TABLE.items()
    ]
    out(as_json).table(rows, ("code", "status", "exit", "meaning"), title="Errors")


def main() -> None:
    """Run the command line; end with the exit code of the errors table."""
    arguments = sys.argv[1:]
    try:
        app(args=arguments)  # ends the process by itself: 0, 2 for wrong usage, or what a command chose
    except FarshoreError as error:
        _report(error, "--json" in arguments)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more; nor at exit
        sys.exit(0)


def _report(error: FarshoreError, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": error.body().model_dump(exclude_none=True)}), file=sys.stderr)
        return
    field = f" (field {error.field})" if error.field else ""
    print(f"error [{error.code}]: {error.message}{field}", file=sys.stderr)
    if error.hint:
        print(f"  next: {error.hint}", file=sys.stderr)
