"""`serve` and `stop`: the reconciler as a process."""

import subprocess
import sys
from pathlib import Path

import typer

from farshore.cli.terminal import Output, out
from farshore_schema.connection import DEFAULT_PORT, default_directory
from farshore_schema.errors import Refused

STOP_SECONDS = 60


def register(app: typer.Typer) -> None:
    """Add the commands of this room."""
    app.command("serve")(serve)
    app.command("stop")(stop)


def serve(
    directory: Path | None = typer.Option(
        None, "--directory", help="Where everything is kept; FARSHORE_DIR or a default."
    ),
    host: str = typer.Option("127.0.0.1", "--host", help="Address to listen on; off loopback TLS is required."),
    port: int = typer.Option(DEFAULT_PORT, "--port", help="0 chooses a free port and writes it to endpoint.json."),
    tls_cert: Path | None = typer.Option(None, "--tls-cert", help="PEM certificate chain."),
    tls_key: Path | None = typer.Option(None, "--tls-key", help="PEM private key."),
    embedded_agent: bool = typer.Option(True, help="Start an agent that serves every site without an enrolled one."),
) -> None:
    """Run the reconciler: store, API, loop and an embedded agent, from nothing, in this directory.

    Example: farshore serve --directory /var/lib/farshore
    """
    # The server's imports take a second that no other command should pay.
    from farshore.serve import run
    from farshore.settings import Settings

    run(
        Settings(
            directory=directory or default_directory(),
            host=host,
            port=port,
            tls_cert=tls_cert,
            tls_key=tls_key,
            embedded_agent=embedded_agent,
        )
    )


def stop(
    everything: bool = typer.Option(False, "--all", help="Also end data-path and probe processes: protection stops."),
    directory: Path | None = typer.Option(None, "--directory"),
    as_json: bool = Output,
) -> None:
    """End the processes that a stopped reconciler leaves running on purpose.

    Example: farshore stop --all
    """
    if not everything:
        raise Refused(
            "invalid_request",
            "stopping the reconciler is done by ending `farshore serve`; streams and probes go on without it",
            hint="`farshore stop --all` ends those too: protection stops",
        )
    home = (directory or default_directory()) / "agent"
    command = [sys.executable, "-m", "farshore_agent.main", "stop", "--directory", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=STOP_SECONDS, check=False)
    if done.returncode:
        raise Refused(
            "operation_failed", done.stderr.strip() or "the agent's processes could not be ended", hint="see above"
        )
    printer = out(as_json)
    ended = done.stdout.splitlines()
    printer.line("\n".join(ended) or "nothing was running")
    if as_json:
        printer.value({"ended": ended})
