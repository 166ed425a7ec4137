"""Declaring without Pulumi: `apply`, `validate`, `delete`. The same documents, the same admission."""

import sys
from collections.abc import Container
from pathlib import Path
from typing import Annotated, Any

import typer

from farshore.cli import api
from farshore.cli.roles import follow
from farshore.cli.terminal import Output, out
from farshore_schema.documents import Site
from farshore_schema.errors import FarshoreError, Refused
from farshore_schema.validate import read_documents

File = Annotated[str, typer.Argument(help="YAML or JSON file with documents, or - for standard input.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command("validate")(validate)
    app.command("apply")(apply)
    app.command("delete")(delete)


def _text(file: str) -> str:
    try:
        return sys.stdin.read() if file == "-" else Path(file).read_text()
    except OSError as error:
        raise Refused(
            "invalid_request", f"cannot read {file}: {error.strerror}", hint="name an existing file"
        ) from error


def validate(file: File, as_json: bool = Output) -> None:
    """Check documents against the schema, with line and field of every mistake.

    Example: farshore validate dr-site.yaml
    """
    result = read_documents(_text(file))
    printer = out(as_json)
    if as_json:
        printer.value({"documents": len(result.documents), "failures": [f._asdict() for f in result.failures]})
    for failure in result.failures:
        printer.line(f"{file}:{failure.line}: {failure.field}: {failure.message}")
    if result.failures:
        raise Refused(
            "invalid_document", f"{file}: {len(result.failures)} mistake(s)", hint="mend the lines named above"
        )
    printer.line(f"{file}: {len(result.documents)} document(s) are valid")


def apply(
    file: File,
    dry_run: bool = typer.Option(False, "--dry-run", help="Only show what would change."),
    as_json: bool = Output,
) -> None:
    """Declare the documents of a file; a changed primary_site is a planned switchover that is waited for.

    Example: farshore apply dr-site.yaml --dry-run
    """
    result = read_documents(_text(file))
    if result.failures:
        first = result.failures[0]
        raise Refused(
            "invalid_document",
            f"{file}:{first.line}: {first.message}",
            field=first.field,
            hint=f"`farshore validate {file}` shows every mistake",
        )
    printer = out(as_json)
    rows = []
    coming = {item.name for item in result.documents if isinstance(item, Site)}
    for document in sorted(result.documents, key=lambda item: not isinstance(item, Site)):
        rows.append(_plan(document, coming) if dry_run else _declare(document))
        printer.line(f"{document.kind} {document.name}: {rows[-1]['outcome']}")
    if as_json:
        printer.value(rows)


def _plan(document: Any, coming: Container[str]) -> dict[str, Any]:
    """Return what declaring would do. The sites in `coming` are declared before any pair: they may be unknown now."""
    if isinstance(document, Site):
        return {"kind": "Site", "name": document.name, "outcome": "site"}
    plan = api.call("POST", "/v1/plan", body={"document": document.model_dump(mode="json", exclude_unset=True)})
    ends = {"site_a.site": document.site_a.site, "site_b.site": document.site_b.site}
    for failure in plan["failures"]:
        if failure["code"] != "unknown_site" or ends.get(failure["field"]) not in coming:
            raise FarshoreError(failure["code"], failure["message"], hint=failure["hint"], field=failure["field"])
    outcome = plan["summary"] or plan["action"]
    if plan["failures"]:
        outcome = f"{plan['action']}, after the sites of this file; its servers are looked at then"
    return {"kind": document.kind, "name": document.name, "outcome": outcome, "plan": plan}


def _declare(document: Any) -> dict[str, Any]:
    body = document.model_dump(mode="json", exclude_unset=True) | {"kind": document.kind, "version": document.version}
    if isinstance(document, Site):
        api.call("PUT", f"/v1/sites/{document.name}", body=body)
        return {"kind": "Site", "name": document.name, "outcome": "declared"}
    answer = api.call("PUT", f"/v1/pairs/{document.name}", body={"document": body})
    row = {"kind": document.kind, "name": document.name, "outcome": "declared", "operation": answer.get("operation")}
    if answer.get("operation") and answer["view"]["status"]["phase"] != "accepted":
        follow(document.name, answer["operation"])
        row["outcome"] = "declared, switched over"
    return row


def delete(
    name: Annotated[str, typer.Argument(help="Pair or site.")],
    kind: str = typer.Option("pair", "--kind", help="pair or site."),
    yes: bool = typer.Option(False, "--yes", help="Do not ask."),
    force: bool = typer.Option(False, "--force", help="Also when failed over or a side is unreachable."),
    delete_journal: bool = typer.Option(
        False, "--delete-journal", help="Also drop the journal, and with it every recovery point."
    ),
    as_json: bool = Output,
) -> None:
    """End protection of a pair (both databases are kept), or remove a site.

    Example: farshore delete orders
    """
    if (
        not yes
        and typer.prompt(f"This ends protection of {name}; both databases are kept. Type its name to go on") != name
    ):
        raise Refused("invalid_request", "the name did not match; nothing was changed", hint="run it again")
    if kind == "site":
        api.call("DELETE", f"/v1/sites/{name}")
    else:
        view = api.call("GET", f"/v1/pairs/{name}")
        api.call(
            "DELETE",
            f"/v1/pairs/{name}",
            incarnation=view["incarnation"],
            force=force or None,
            delete_journal=delete_journal or None,
        )
    printer = out(as_json)
    printer.line(
        f"{name}: protection is ending; `farshore status` shows when it is gone"
        if kind == "pair"
        else f"{name}: removed"
    )
    if as_json:
        printer.value({"name": name, "outcome": "accepted"})
