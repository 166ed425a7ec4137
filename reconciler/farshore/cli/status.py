"""Seeing: `status` for all pairs or one, live with --watch, and `describe` for everything about one."""

import time
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from farshore.cli import api
from farshore.cli.terminal import Output, duration, out, size, styled
from farshore_schema.errors import Permanent

WATCH_SECONDS = 0.5
DESCRIBED_STEPS = 40


def register(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command("status")(status)
    app.command("describe")(describe)


def status(
    pair: Annotated[str | None, typer.Argument(help="Name of a pair; all pairs unless given.")] = None,
    watch: bool = typer.Option(False, "--watch", help="Show it live until interrupted."),
    until: str = typer.Option("", "--until", help="With --watch: end when every pair shown is in this phase."),
    timeout: float = typer.Option(0, "--timeout", help="With --until: give up after so many seconds."),
    as_json: bool = Output,
) -> None:
    """Show where each workload is active, how well it is protected, and what is going on.

    Example: farshore status orders --watch --until protected --timeout 600
    """
    printer = out(as_json)
    if not watch:
        views = _views(pair)
        if as_json:
            printer.value([_row(view) | {"status": view["status"]} for view in views])
        else:
            printer.console.print(_screen(views))
        return
    deadline = time.monotonic() + timeout if timeout else None
    with Live(console=printer.console, auto_refresh=False, transient=False) as live:
        while True:
            views = _views(pair)
            live.update(_screen(views), refresh=True)
            phases = [view["status"]["phase"] for view in views]
            if until and views and all(phase == until for phase in phases):
                return
            if deadline and time.monotonic() > deadline:
                raise Permanent(
                    "timeout",
                    f"not {until} after {timeout:.0f} s: {', '.join(phases)}",
                    hint="`farshore doctor PAIR` says what to mend",
                )
            time.sleep(WATCH_SECONDS)


def _views(pair: str | None) -> list[dict[str, Any]]:
    return [api.call("GET", f"/v1/pairs/{pair}")] if pair else api.pairs()


def _row(view: dict[str, Any]) -> dict[str, Any]:
    now, role = view["status"], view["status"].get("role") or {}
    replication = now["replication"]
    operation = now.get("operation")
    going = operation if operation and operation["state"] in ("open", "waiting") else None
    return {
        "pair": view["document"]["name"],
        "phase": now["phase"],
        "active": role.get("active_site"),
        "standby": role.get("standby_site"),
        "class": replication["rpo_class"],
        "lag": duration(replication["lag_seconds"]) if replication.get("lag_seconds") is not None else None,
        "failover_in": duration(replication["backlog_seconds"])
        if replication.get("backlog_seconds") is not None
        else None,
        "operation": f"{going['verb']} {going['step']}/{going['steps']} {going['label']}" if going else None,
    }


def _screen(views: list[dict[str, Any]]) -> RenderableType:
    if not views:
        return Text("no pairs are declared; see `farshore apply --help` or a Pulumi program")
    columns = ("pair", "phase", "active", "standby", "class", "lag", "failover_in", "operation")
    table = Table(header_style="bold", box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " ").upper())
    parts: list[RenderableType] = [table]
    for view in views:
        row = _row(view)
        table.add_row(*(styled(row[column]) for column in columns))
        parts += _details(view)
    return Group(*parts)


def _details(view: dict[str, Any]) -> list[RenderableType]:
    name, now = view["document"]["name"], view["status"]
    seed, stopped = now["replication"].get("seed"), now["replication"].get("stopped")
    shown: list[RenderableType] = []
    if seed and now["phase"] == "catching_up":
        shown.append(Text(f"  {name}: the copy is complete; applying what was committed meanwhile"))
    elif seed and now["phase"] == "seeding":
        bar = Table.grid(padding=(0, 1))
        total = seed["bytes_total"] or 1
        bar.add_row(
            f"  {name}: seed, {seed['phase']}",
            ProgressBar(total=total, completed=min(seed["bytes_done"], total), width=30),
            f"{size(seed['bytes_done'])} of about {size(seed['bytes_total'])}, {seed['rows_done']:,} rows, "
            f"{seed['tables_done']}/{seed['tables_total']} tables {seed['current']}",
        )
        shown.append(bar)
    operation = now.get("operation")
    if operation and operation["state"] == "waiting":
        shown.append(
            Text(
                f"  {name}: {operation['verb']} waits: {operation['waiting_for']}. {operation['waiting_hint']}",
                "yellow",
            )
        )
    if stopped:
        shown.append(Text(f"  {name}: stopped [{stopped['code']}]: {stopped['message']}", "red"))
        shown.append(Text(f"    next: {stopped['hint']}"))
    return shown


def describe(pair: Annotated[str, typer.Argument(help="Name of the pair.")], as_json: bool = Output) -> None:
    """Show everything about one pair: declaration, roles, replication, conditions, what is allowed now, last operation.

    Example: farshore describe orders
    """
    view = api.call("GET", f"/v1/pairs/{pair}")
    printer = out(as_json)
    if as_json:
        printer.value(view)
        return
    now, document = view["status"], view["document"]
    printer.console.print(_screen([view]))
    facts: list[tuple[str, object]] = [
        (
            "declared by",
            f"{'/'.join(v for v in view['owner'].values() if v) or 'nobody'} (generation {view['generation']})",
        ),
        ("site a", f"{document['site_a']['site']} {document['site_a']['host']}:{document['site_a']['port']}"),
        ("site b", f"{document['site_b']['site']} {document['site_b']['host']}:{document['site_b']['port']}"),
        ("primary site declared", document.get("primary_site") or "none: code never moves roles"),
    ]
    if role := now.get("role"):
        facts.append(
            (
                "role",
                f"{role['active_site']} since {role['since']}, epoch {role['epoch']}, other side: {role['evidence']}",
            )
        )
        facts.append(("moved by", f"{role['by'] or '-'} ({role['operation'] or '-'})"))
    replication = now["replication"]
    facts.append(("measured", replication.get("how") or "-"))
    facts.append(("journal", size(replication.get("journal_bytes"))))
    for name, value in facts:
        printer.console.print(f"  [bold]{name:22}[/bold] {styled(value)}")
    printer.table(now["conditions"], ("type", "status", "reason", "message"), title="Conditions")
    printer.table(now["allowed_operations"], ("verb", "to_site", "allowed", "why_not"), title="Allowed now")
    if now["findings"]:
        printer.table(now["findings"], ("severity", "code", "message", "hint"), title="Findings")
    if operation := now.get("operation"):
        title = f"{operation['verb']} {operation['id']} by {operation['by'] or '-'}: {operation['state']}"
        printer.table(
            operation["log"][-DESCRIBED_STEPS:], ("name", "site", "state", "started", "seconds", "detail"), title=title
        )
