"""What a role probe asks of an engine kind: is this side's database writable right now.

One small object per side, with one persistent connection that is opened early and kept, so that a server with
"too many connections" still answers it (R23). It lives in the probe process, which outlives the agent. It knows nothing
of roles, epochs or records: those are read from disk beside it. This module must stay cheap to import.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

CHECK_SECONDS = 1.0
"""The longest a check may take: dial, login and question together. Older answers are not used either."""


@dataclass(frozen=True, kw_only=True)
class ProbeTarget:
    """Where and as whom a check logs in: the site's own endpoint with its `admin` account (R6)."""

    kind: str
    host: str
    port: int
    user: str
    password: str = field(repr=False)  # only ever in memory: it reaches the probe process through its control socket
    tls_mode: str = "required"  # as documents.Tls.mode
    tls_ca_file: str | None = None


class WritableCheck(Protocol):
    """One side's question. Used by one thread at a time."""

    def writable(self) -> bool:
        """Return whether the database accepts client writes now, within `CHECK_SECONDS`.

        Keeps its one connection between calls and dials again only when that is lost. Raises `Transient` or
        `Permanent` when it cannot tell; the reason is shown to whoever asks the probe, so it carries no secret.
        """
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


CheckFactory = Callable[[ProbeTarget], WritableCheck]
"""Makes a check; must not connect yet."""
