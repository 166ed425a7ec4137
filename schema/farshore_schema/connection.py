"""Where a program on this machine finds the reconciler and its token: one rule for CLI and provider (R7).

Knows files and environment variables, no transport.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from farshore_schema.errors import Permanent

DEFAULT_PORT = 7440
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, kw_only=True)
class Connection:
    """A reconciler's address and the bearer token to use with it; the token never shows in its repr."""

    endpoint: str
    token: str
    ca_file: str | None = None

    def __repr__(self) -> str:
        return f"Connection(endpoint={self.endpoint!r})"


def default_directory() -> Path:
    """Return where `farshore serve` keeps its files unless told otherwise: FARSHORE_DIR, else a per-user directory."""
    named = os.environ.get("FARSHORE_DIR")
    if named:
        return Path(named)
    if os.geteuid() == 0:
        return Path("/var/lib/farshore")
    return Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local" / "state")) / "farshore"


def is_loopback(endpoint: str) -> bool:
    """Say whether the endpoint can only be this machine."""
    return (urlsplit(endpoint).hostname or "") in LOOPBACK_HOSTS


def find(endpoint: str | None = None, token: str | None = None, directory: Path | None = None) -> Connection:
    """Return how to reach the reconciler.

    The endpoint is the argument, else FARSHORE_ENDPOINT, else what `serve` wrote into its directory, else the default
    port on loopback. The token is the argument, else FARSHORE_TOKEN, else, on loopback only, DIR/admin.token.

    Raises Permanent("unauthenticated") when no token can be found, Permanent("invalid_request") for http off loopback.
    """
    home = directory or default_directory()
    where = (endpoint or os.environ.get("FARSHORE_ENDPOINT") or _written_endpoint(home)).rstrip("/")
    if not where.startswith(("http://", "https://")):
        raise Permanent("invalid_request", f'endpoint "{where}" is not a URL', hint="use https://HOST:PORT")
    if where.startswith("http://") and not is_loopback(where):
        raise Permanent(
            "invalid_request",
            f'endpoint "{where}" would send the token in clear over a network',
            hint="use https:// for a reconciler that is not on this machine",
        )
    secret = token or os.environ.get("FARSHORE_TOKEN") or (_admin_token(home) if is_loopback(where) else None)
    if not secret:
        raise Permanent(
            "unauthenticated",
            f"no token for {where}: FARSHORE_TOKEN is not set and {home / 'admin.token'} cannot be read",
            hint="set FARSHORE_TOKEN, or FARSHORE_DIR to the directory of `farshore serve`",
        )
    return Connection(endpoint=where, token=secret.strip(), ca_file=os.environ.get("FARSHORE_CA_FILE") or None)


def _written_endpoint(home: Path) -> str:
    try:
        return str(json.loads((home / "endpoint.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return f"http://127.0.0.1:{DEFAULT_PORT}"


def _admin_token(home: Path) -> str | None:
    try:
        return (home / "admin.token").read_text()
    except OSError:
        return None
