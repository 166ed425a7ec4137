"""Changing roles: `switchover`, `reprotect`, `rebind` and `abort`, and following an operation to its end."""

from typing import Annotated, Any

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from farshore.cli import api
from farshore.cli.terminal import Output, duration, out
from farshore_schema.errors import ErrorBody, Permanent, Refused, from_body

POLL_SECONDS = 10

Pair = Annotated[str, typer.Argument(help="Name of the pair.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command("switchover")(switchover)
    app.command("reprotect")(reprotect)
    app.command("rebind")(rebind)
    app.command("abort")(abort)


def switchover(
    pair: Pair,
    to: str = typer.Option("", "--to", help="Site that is to be active; the other one unless said."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask for the pair's name."),
    reason: str = typer.Option("", "--reason", help="Kept in the audit trail."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Return on acceptance."),
    as_json: bool = Output,
) -> None:
    """Move the active side, planned: no acknowledged transaction is lost, or it is refused.

    Example: farshore switchover orders --to osaka --reason "maintenance in tokyo"
    """
    status, role = _decided(pair)
    target = to or role["standby_site"]
    printer = out(as_json)
    lag = status["replication"].get("lag_seconds")
    printer.line(
        f"{pair}: planned switchover {role['active_site']} -> {target}; measured lag {duration(lag)}; loses nothing."
    )
    body = {"verb": "switchover", "to_site": target, "if_epoch": role["epoch"], "reason": reason}
    _ask(pair, body, f"{pair}: {target} is active now.", yes=yes, no_wait=no_wait, as_json=as_json)


def reprotect(
    pair: Pair,
    yes: bool = typer.Option(False, "--yes", help="Do not ask for the pair's name."),
    reason: str = typer.Option("", "--reason", help="Kept in the audit trail."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Return on acceptance."),
    as_json: bool = Output,
) -> None:
    """Let the standby follow again: from where it is, or by a full copy that overwrites it. The consent for that copy.

    Example: farshore reprotect orders --reason "tokyo is back"
    """
    _, role = _decided(pair)
    target = role["standby_site"]
    printer = out(as_json)
    printer.line(
        f"{pair}: {target} follows {role['active_site']} again. Where it cannot go on from what it holds, everything "
        f"at {target} is overwritten by a full copy."
    )
    body = {"verb": "reprotect", "to_site": target, "if_epoch": role["epoch"], "reason": reason}
    _ask(pair, body, f"{pair}: {target} follows now.", yes=yes, no_wait=no_wait, as_json=as_json)


def rebind(
    pair: Pair,
    without_standby: bool = typer.Option(
        False, "--without-standby", help="Go on although the standby cannot follow; a reprotect then copies it anew."
    ),
    yes: bool = typer.Option(False, "--yes", help="Do not ask for the pair's name."),
    reason: str = typer.Option("", "--reason", help="Kept in the audit trail."),
    no_wait: bool = typer.Option(False, "--no-wait", help="Return on acceptance."),
    as_json: bool = Output,
) -> None:
    """Follow the server that took the active one's place, once it is proved to hold all that the standby received.

    Example: farshore rebind orders --reason "tokyo failed over to its replica"
    """
    status, role = _decided(pair)
    active, standby = role["active_site"], role["standby_site"]
    printer = out(as_json)
    printer.line(f"{pair}: {_replacement(status, active)}.")
    printer.line(
        f"{standby} is given up, unproved: it follows only after `farshore reprotect {pair}`, which overwrites it."
        if without_standby
        else f"{standby} follows it, if it holds every transaction that {standby} received and has purged none that it "
        "needs next; else nothing is changed."
    )
    body = {"verb": "rebind", "to_site": active, "if_epoch": role["epoch"], "reason": reason}
    body["without_standby"] = without_standby
    alone = f"{pair}: {active} is bound to its new server; next: farshore reprotect {pair}"
    done = alone if without_standby else f"{pair}: {standby} follows the new server now."
    _ask(pair, body, done, yes=yes, no_wait=no_wait, as_json=as_json)


def _replacement(status: dict[str, Any], active: str) -> str:
    """Return which server took which one's place, as the reconciler sees it."""
    side = status["role"]["active_side"]
    found = (each for each in status["findings"] if (each["code"], each["side"]) == ("source_replaced", side))
    said = next(found, None)
    return said["message"] if said is not None else f"{active} is seen with the server that the pair is bound to"


def _decided(pair: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a pair's status and its role; raise Refused while it has none."""
    status = api.call("GET", f"/v1/pairs/{pair}")["status"]
    if status.get("role") is None:
        raise Refused("not_possible_now", f"{pair} has no active side yet", hint=f"`farshore status {pair}`")
    return status, status["role"]


def _ask(pair: str, body: dict[str, Any], done: str, *, yes: bool, no_wait: bool, as_json: bool) -> None:
    """Ask for an operation, once it is confirmed, and follow it to its end, which `done` tells."""
    if not yes and typer.prompt("Type the pair's name to go on") != pair:
        raise Refused("invalid_request", "the name did not match; nothing was changed", hint="run it again")
    operation = api.call("POST", f"/v1/pairs/{pair}/operations", body=body)
    ended = operation if no_wait else follow(pair, operation["id"], quiet=as_json)
    printer = out(as_json)
    if as_json:
        printer.value(ended)
    elif not no_wait:
        printer.line(done)


def abort(pair: Pair, reason: str = typer.Option("", "--reason"), as_json: bool = Output) -> None:
    """Undo the open operation, where it still can be undone.

    Example: farshore abort orders --reason "the batch job is not done"
    """
    view = api.call("GET", f"/v1/pairs/{pair}")
    operation = view["status"].get("operation")
    if not operation or operation["state"] not in ("open", "waiting"):
        raise Refused("not_possible_now", f"{pair} has no open operation", hint=f"`farshore status {pair}`")
    answer = api.call("POST", f"/v1/pairs/{pair}/operations/{operation['id']}/abort", body={"reason": reason})
    printer = out(as_json)
    printer.line(f"{pair}: abort of {operation['verb']} {operation['id']} is accepted")
    if as_json:
        printer.value(answer)


def follow(pair: str, operation: str, *, quiet: bool = False) -> dict[str, Any]:
    """Show an operation step by step until it ends; raise its error when it did not do what was asked."""
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, transient=False, disable=quiet) as progress:
        task = progress.add_task(f"{pair}: starting", total=None)
        step: int | None = None
        while True:
            # The long poll returns early when the operation ends, and in steps of a second while it runs.
            view: dict[str, Any] = api.call(
                "GET", f"/v1/pairs/{pair}/operations/{operation}", wait_seconds=POLL_SECONDS, after_step=step
            )
            step = view.get("step")
            label = view.get("waiting_for") or view.get("label") or view["state"]
            progress.update(
                task, description=f"{pair}: {label}", total=view.get("steps") or None, completed=view.get("step")
            )
            if view["state"] not in ("open", "waiting"):
                progress.update(task, description=f"{pair}: {view['state']}")
                break
    if view["state"] == "done":
        return view
    if view.get("error"):
        raise from_body(ErrorBody.model_validate(view["error"]))
    raise Permanent(
        "operation_failed",
        f"{view['verb']} {operation} ended {view['state']}: {view.get('abort_reason') or 'no reason recorded'}",
        hint=f"`farshore describe {pair}` shows every step",
    )
