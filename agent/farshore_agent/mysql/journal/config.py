"""Settings of the two journal processes: frozen values, and their file in DIR/run.

Secrets are paths to files, never values. This module must not know processes or connections.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from farshore_agent.mysql.journal.errors import Permanent

CONFIG_VERSION: Final = 1


class TlsMode(StrEnum):
    """How the source is dialled; the names are those of MySQL's clients."""

    DISABLED = "disabled"
    REQUIRED = "required"
    """Encrypted, the server's certificate is not checked."""
    VERIFY_CA = "verify_ca"
    VERIFY_IDENTITY = "verify_identity"


@dataclass(frozen=True, kw_only=True)
class Tls:
    mode: TlsMode = TlsMode.REQUIRED
    ca_file: Path | None = None
    """PEM file; needed by the two verifying modes."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """The server whose binary log is kept."""

    host: str
    port: int
    user: str
    password_file: Path
    """Mode 0600; read at every dial, so a changed password needs no restart."""
    expected_server_uuid: str
    tls: Tls = Tls()


@dataclass(frozen=True, kw_only=True)
class Retention:
    """When closed files go: beyond either limit, oldest first, and never what a standby may still need."""

    age_seconds: float = 7 * 86400.0
    bytes: int = 100 << 30


@dataclass(frozen=True, kw_only=True)
class JournalConfig:
    """One journal: a directory, the stream it receives and the port it serves."""

    directory: Path
    pair: str
    epoch: int
    """Role epoch; a new epoch starts a new segment, after the old one was sealed."""
    source: Source
    server_id: int
    """Ours towards the source; unique among its replicas."""
    server_uuid: str
    """Ours towards the source; a second connection with the same uuid would end the first (1236)."""
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    """0 chooses a port at the first start and keeps it."""
    heartbeat_seconds: float = 1.0
    """Asked of the source; a link silent for SILENCE_HEARTBEATS of them is dead."""
    retention: Retention = Retention()
    start_gtid_set: str | None = None
    """For a new segment: it contains everything after this set. None: the source's present gtid_executed."""


@dataclass(frozen=True, kw_only=True)
class Listening:
    """Settings of the server process: few, so that a role change does not restart it."""

    host: str
    port: int
    """0 chooses one and keeps it."""


def encode_listening(config: JournalConfig) -> str:
    """The text of DIR/run/server.json."""
    document = {"version": CONFIG_VERSION, "host": config.listen_host, "port": config.listen_port}
    return json.dumps(document, indent=1, sort_keys=True) + "\n"


def decode_listening(text: str) -> Listening:
    """Raises Permanent when the text was written by another version or is damaged."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document.pop("version") != CONFIG_VERSION:
            raise ValueError("another version")
        return Listening(**document)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(error) from error


def encode(config: JournalConfig) -> str:
    """The text of DIR/run/receiver.json."""
    return json.dumps({"version": CONFIG_VERSION, **asdict(config)}, default=str, indent=1, sort_keys=True) + "\n"


def decode(text: str) -> JournalConfig:
    """Raises Permanent when the text was written by another version or is damaged."""
    try:
        document: dict[str, Any] = json.loads(text)
        if document.pop("version") != CONFIG_VERSION:
            raise ValueError("another version")
        source = document.pop("source")
        tls = source.pop("tls")
        return JournalConfig(
            **{
                **document,
                "directory": Path(document["directory"]),
                "retention": Retention(**document["retention"]),
                "source": Source(
                    **{
                        **source,
                        "password_file": Path(source["password_file"]),
                        "tls": Tls(mode=TlsMode(tls["mode"]), ca_file=Path(tls["ca_file"]) if tls["ca_file"] else None),
                    }
                ),
            }
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(error) from error


def _unreadable(error: Exception) -> Permanent:
    return Permanent(
        f"the settings of the journal process cannot be read ({error})",
        hint="Start it through the agent, which writes them again.",
    )
