"""`doctor`: look at both ends of a pair and say what to run to mend each finding."""

from typing import Annotated

import typer

from farshore.cli import api
from farshore.cli.terminal import Output, out, styled


def register(app: typer.Typer) -> None:
    """Add the command of this room."""
    app.command("doctor")(doctor)


def doctor(
    pair: Annotated[str, typer.Argument(help="Name of the pair.")],
    as_json: bool = Output,
) -> None:
    """Check both ends of a pair and print each finding with the command that mends it; exit 7 if one is an error.

    Example: farshore doctor orders
    """
    findings = api.call("POST", f"/v1/pairs/{pair}/doctor", body={})["findings"]
    document = api.call("GET", f"/v1/pairs/{pair}")["document"]
    printer = out(as_json)
    if as_json:
        printer.value(findings)
    for finding in findings:
        if as_json:
            break
        site = document[f"site_{finding['side']}"]["site"] if finding.get("side") else "both sites"
        printer.console.print(f"{styled(finding['severity'])} {site} [{finding['code']}]", markup=True)
        printer.line(f"  {finding['message']}")
        if finding.get("hint"):
            printer.line(f"  next: {finding['hint']}")
    errors = sum(finding["severity"] == "error" for finding in findings)
    printer.line(
        f"{pair}: {len(findings)} finding(s), {errors} of them must be mended" if findings else f"{pair}: nothing found"
    )
    if errors:
        raise typer.Exit(7)
