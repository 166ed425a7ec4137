"""`events`: everything that changes, as it happens."""

import json
from typing import Any

import typer

from farshore.cli import api
from farshore.cli.terminal import Output, out


def register(app: typer.Typer) -> None:
    """Add the command of this room."""
    app.command("events")(events)


def events(
    count: int = typer.Option(0, "--count", help="End after so many events; 0 goes on."), as_json: bool = Output
) -> None:
    """Follow changes of pairs, operations and agents; one line each, with --json one JSON object each.

    Example: farshore events --json
    """
    printer = out(as_json)
    for number, (kind, data) in enumerate(api.stream("/v1/events"), 1):
        if as_json:
            print(json.dumps({"kind": kind, "data": data}), flush=True)
        else:
            printer.line(f"{kind:10} {_sentence(data)}")
        if count and number >= count:
            return


def _sentence(data: dict[str, Any]) -> str:
    known = ("pair", "name", "site", "phase", "verb", "state", "label", "revision")
    return " ".join(f"{key}={data[key]}" for key in known if data.get(key) not in (None, ""))
