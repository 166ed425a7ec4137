"""How the command line prints: tables for people, JSON for programs, progress for long work."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Output = typer.Option(False, "--json", help="Print JSON instead of tables.")

STYLES = {
    "protected": "green",
    "True": "green",
    "done": "green",
    "seeding": "cyan",
    "catching_up": "cyan",
    "switching": "yellow",
    "waiting": "yellow",
    "Unknown": "yellow",
    "unknown": "yellow",
    "warning": "yellow",
    "aborted": "red",
    "failed": "red",
    "stopped": "red",
    "False": "red",
    "error": "red",
}


@dataclass(frozen=True, kw_only=True)
class Printer:
    """One command's output; `as_json` was decided by the user."""

    as_json: bool
    console: Console

    def value(self, value: object) -> None:
        """Print a document: JSON either way, indented."""
        if self.as_json:
            print(json.dumps(value, indent=2))
        else:
            self.console.print_json(json.dumps(value))

    def line(self, text: str) -> None:
        """Print a sentence for people; nothing in JSON."""
        if not self.as_json:
            self.console.print(escape(text), soft_wrap=True)

    def table(
        self,
        rows: Iterable[Mapping[str, Any]],
        columns: Sequence[str],
        *,
        title: str = "",
        empty: str = "nothing to show",
    ) -> None:
        """Print rows; in JSON a list of objects with all their fields."""
        rows = list(rows)
        if self.as_json:
            print(json.dumps(rows, indent=2))
            return
        if not rows:
            self.console.print(empty)
            return
        table = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for column in columns:
            table.add_column(column.replace("_", " ").upper(), overflow="fold")
        for row in rows:
            table.add_row(*(styled(row.get(column)) for column in columns))
        self.console.print(table)


def out(as_json: bool) -> Printer:
    """Return the printer of a command."""
    return Printer(as_json=as_json, console=Console(highlight=False))


def styled(value: object) -> str:
    """Return a cell's text, coloured by what it says."""
    text = "-" if value is None or value == "" else escape(str(value))
    style = STYLES.get(text)
    return f"[{style}]{text}[/{style}]" if style else text


def duration(seconds: float | None) -> str:
    """Return seconds as people read them."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def size(count: float | None) -> str:
    """Return bytes as people read them."""
    if count is None:
        return "unknown"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return ""
