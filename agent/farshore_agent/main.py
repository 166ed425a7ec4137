"""The command `farshore-agent`: run, enrol, stop."""

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, NoReturn

import typer

from farshore_agent import enrolment, service, settings, stop
from farshore_agent.engines import Engine, Look, Seat
from farshore_agent.settings import Settings
from farshore_agent.sides import EngineFactory
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import FarshoreError, Permanent
from farshore_schema.roles import Side

DEFAULT_DIRECTORY: Final = Path("/var/lib/farshore-agent")
CODE_BYTES_MAX: Final = 1024

app = typer.Typer(help="Works next to the data for a Farshore reconciler.", no_args_is_help=True, add_completion=False)

Directory = Annotated[
    Path,
    typer.Option("--directory", "-d", envvar="FARSHORE_AGENT_DIRECTORY", help="Private directory of this agent."),
]
CaFile = Annotated[Path | None, typer.Option(help="Certificate authority that the reconciler is verified against.")]
PlainHttp = Annotated[bool, typer.Option("--plain-http", help="Allow http to another machine. For test beds only.")]


def _mysql_engine(seat: Seat) -> Engine:
    from farshore_agent.mysql.engine import MySQLEngine  # loaded with the first MySQL pair only

    return MySQLEngine(seat)


def _look(document: MySQLPair, own: Side, existing: bool, secret: Callable[[str], str]) -> Look:
    from farshore_agent.mysql.inspect import look

    return look(document, own, existing, secret)


ENGINES: Final[dict[str, EngineFactory]] = {"MySQLPair": _mysql_engine}
"""Document kind -> engine."""


@app.command()
def run(
    directory: Directory = DEFAULT_DIRECTORY,
    url: Annotated[str | None, typer.Option(help="Reconciler, if not the one it enrolled with.")] = None,
    embedded: Annotated[bool, typer.Option("--embedded", hidden=True)] = False,
    credential_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
    ca_file: CaFile = None,
    probe_host: Annotated[
        str, typer.Option(envvar="FARSHORE_PROBE_HOST", help="Address that role probes listen on.")
    ] = "127.0.0.1",
    probe_port: Annotated[
        list[str] | None, typer.Option(envvar="FARSHORE_PROBE_PORT", help="SITE=PORT of a role probe; may be repeated.")
    ] = None,
    plain_http: PlainHttp = False,
) -> None:
    """Serve this agent's sites until it is ended; data-path and probe processes go on after that."""
    try:
        chosen = _run_settings(
            directory=directory.absolute(), url=url, embedded=embedded, credential_fd=credential_fd, ca_file=ca_file
        )
        ports = dict(_site_port(each) for each in probe_port or [])
        service.run(
            settings.with_probes(chosen, host=probe_host, ports=ports, plain_http=plain_http),
            engines=ENGINES,
            look=_look,
        )
    except FarshoreError as error:
        _fail(error)
    # A move that does not listen must not keep the process: orders are asked for again.
    sys.stderr.flush()
    os._exit(0)


@app.command()
def enrol(
    url: Annotated[str, typer.Option(help="Address of the reconciler, https://HOST:PORT.")],
    directory: Directory = DEFAULT_DIRECTORY,
    code: Annotated[
        str | None,
        typer.Option(
            help="One-time code of `farshore agents enrol --site SITE`; better typed at the prompt or piped than given."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of this agent.")] = socket.gethostname(),
    ca_file: CaFile = None,
    again: Annotated[bool, typer.Option("--again", help="Replace the enrolment that the directory has.")] = False,
    plain_http: PlainHttp = False,
) -> None:
    """Take over a site: turn the one-time code into this agent's own credential."""
    try:
        asked = Settings(directory=directory.absolute(), url=url, agent=name, ca_file=ca_file, plain_http=plain_http)
        made = enrolment.enrol(asked, code or _read_code(), again=again)
    except FarshoreError as error:
        _fail(error)
    typer.echo(f"enrolled as {made.agent} for {', '.join(made.sites)}; start it: farshore-agent run -d {directory}")


@app.command("stop")
def stop_processes(directory: Directory = DEFAULT_DIRECTORY) -> None:
    """End every data-path and probe process of a directory. Protection and role probes stop with them."""
    try:
        for line in stop.stop_all(directory.absolute()):
            typer.echo(line)
    except FarshoreError as error:
        _fail(error)


def _run_settings(
    *, directory: Path, url: str | None, embedded: bool, credential_fd: int | None, ca_file: Path | None
) -> Settings:
    if embedded:
        if url is None or credential_fd is None:
            raise Permanent("invalid_request", "--embedded needs --url and --credential-fd", hint="farshore serve")
        credential = settings.read_credential(credential_fd)
        return Settings(
            directory=directory, url=url, agent="embedded", embedded=True, credential=credential, ca_file=ca_file
        )
    kept, credential = settings.enrolled(directory)
    authority = ca_file or (Path(kept.ca_file) if kept.ca_file else None)
    return Settings(
        directory=directory,
        url=url or kept.url,
        agent=kept.agent,
        sites=kept.sites,
        credential=credential,
        ca_file=authority,
    )


def _site_port(text: str) -> tuple[str, int]:
    site, equals, port = text.partition("=")
    if not site or not equals or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Permanent(
            "invalid_request", f"{text!r} is not SITE=PORT", hint="--probe-port tokyo=8610", field="probe_port"
        )
    return site, int(port)


def _read_code() -> str:
    """Return the code typed at a hidden prompt, or piped in: what stands in the arguments can be seen by everybody."""
    if sys.stdin.isatty():
        return str(typer.prompt("one-time code", hide_input=True))
    code = sys.stdin.readline(CODE_BYTES_MAX).strip()
    if not code:
        raise Permanent("invalid_request", "no code came through standard input", hint="farshore-agent enrol --help")
    return code


def _fail(error: FarshoreError) -> NoReturn:
    typer.echo(f"{error.code}: {error.message}", err=True)
    if error.hint:
        typer.echo(f"  {error.hint}", err=True)
    raise typer.Exit(error.exit_code)


def main() -> None:
    """Run the command."""
    app()


if __name__ == "__main__":
    main()
