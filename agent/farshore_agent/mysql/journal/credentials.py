"""Where the journal server's own account and certificate lie: for the standby's channel, and known to nobody else.

    DIR/secrets/server.password    0600
    DIR/secrets/ca.pem             hand this to the standby for SOURCE_SSL_CA
    DIR/secrets/ca.key             0600; signs renewals, so the CA stays the same
    DIR/secrets/server.pem, .key

This module must not know the server, nor how they are made (`certificates`): the serving process would carry the 10 MB
of a cryptographic library for nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from farshore_agent.mysql.journal.catalogue import JournalDirectory

USER: Final = "farshore_journal"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    user: str
    password_file: Path
    ca_file: Path
    certificate_file: Path


def server_key_file(journal: JournalDirectory) -> Path:
    return journal.secrets / "server.key"


def credentials_of(journal: JournalDirectory) -> Credentials:
    """Where the credentials are, whether or not they exist yet."""
    return Credentials(
        user=USER,
        password_file=journal.secrets / "server.password",
        ca_file=journal.secrets / "ca.pem",
        certificate_file=journal.secrets / "server.pem",
    )
