"""Who may do what: API tokens and agents."""

from typing import Annotated

import typer

from farshore.cli import api
from farshore.cli.terminal import Output, out

tokens = typer.Typer(help="Bearer tokens of the API.", no_args_is_help=True)
agents = typer.Typer(help="Agents and the sites they serve.", no_args_is_help=True)


@tokens.command("create")
def create(
    role: Annotated[str, typer.Argument(help="viewer, operator or admin.")],
    note: str = typer.Option("", "--note", help="Whose it is."),
    as_json: bool = Output,
) -> None:
    """Make a token; it is shown this once, only its hash is kept.

    Example: farshore token create viewer --note dashboard
    """
    made = api.call("POST", "/v1/tokens", body={"role": role, "note": note})
    printer = out(as_json)
    printer.line(made["token"])
    if as_json:
        printer.value(made)


@tokens.command("list")
def list_tokens(as_json: bool = Output) -> None:
    """List tokens by id; the tokens themselves cannot be shown again."""
    out(as_json).table(api.call("GET", "/v1/tokens")["items"], ("id", "role", "note", "created"))


@tokens.command("revoke")
def revoke(identifier: Annotated[str, typer.Argument(metavar="ID")], as_json: bool = Output) -> None:
    """Make a token useless at once."""
    api.call("DELETE", f"/v1/tokens/{identifier}")
    printer = out(as_json)
    printer.line(f"token {identifier} is revoked")
    if as_json:
        printer.value({"revoked": identifier})


@agents.command("list")
def list_agents(as_json: bool = Output) -> None:
    """List the agents that are connected and the sites they serve."""
    rows = [row | {"sites": ", ".join(row["sites"])} for row in api.call("GET", "/v1/agents")["items"]]
    out(as_json).table(rows, ("agent", "sites", "embedded", "connected", "version"), empty="no agent is connected")


@agents.command("enrol")
def enrol(site: str = typer.Option(..., "--site"), as_json: bool = Output) -> None:
    """Print a one-time code with which a stand-alone agent takes over a site.

    Example: farshore agents enrol --site osaka
    """
    made = api.call("POST", "/v1/agents/enrol", body={"site": site})
    printer = out(as_json)
    printer.line(f"On the gateway of {site}, within 15 minutes:")
    printer.line(f"  farshore-agent enrol --url URL --code {made['code']}")
    if as_json:
        printer.value(made)
