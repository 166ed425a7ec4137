"""What an engine keeps beside its journal: small durable notes, each with one meaning, none of them a secret.

A note is never taken for more than it says: whoever reads one checks it against the server. It knows no server.
"""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from farshore_agent import durable

SERVER_ID_MIN: Final = 1 << 31
"""Our server ids towards a source lie in the upper half, where people's own numbering does not go."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Who our receiver is towards the source: a replica's server id and uuid, made once for each side."""

    server_id: int
    server_uuid: str


@dataclass(frozen=True, kw_only=True)
class Binding:
    """Which servers this side was bound to (R3); "" before the first contact."""

    own: str = ""
    peer: str = ""


@dataclass(frozen=True, kw_only=True)
class StreamNote:
    """One stream into this side. Its journal is opened with exactly these values again, whatever happened."""

    epoch: int
    source_uuid: str
    start_gtid_set: str
    listen_host: str
    joined: bool = False
    """The channel was started, after it was proved that this side held nothing the source lacks. Taken back when the
    side is opened; while it stands, what the side has of its own is an administrator's doing and not a client's."""
    unbroken: bool = False
    """The note was made while the side followed this source in an earlier epoch: the same holds until it is joined."""


@dataclass(frozen=True, kw_only=True)
class CopyNote:
    """A copy that is complete and proved equal, on a target that is still closed: only its first tail is missing."""

    epoch: int
    own: str
    source: str
    executed: str
    """What the copy holds; valid for this server only while it is in offline_mode."""


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What the active side's applications rely on and a replica does not carry; noted while the other side is open."""

    event_scheduler: str = ""
    disabled_events: tuple[str, ...] = ()
    """As schema.event: switched off by people, although a replica shows them like all others."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of the server before we first changed it."""

    value: str
    persisted: str | None  # None: it was not persisted


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of one server before we changed them."""

    server: str = ""
    before: dict[str, Setting] = field(default_factory=dict)


class Notes:
    """The notes of one side, in one private directory. One writer at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory / "notes"

    def identity(self) -> Identity:
        """Return our identity towards the source; made at the first call."""
        found = self._read("identity")
        if found is None:
            fresh = uuid.uuid4()
            made = Identity(server_id=SERVER_ID_MIN | (fresh.int & (SERVER_ID_MIN - 1)), server_uuid=str(fresh))
            self._write("identity", made)
            return made
        return Identity(**found)

    def binding(self) -> Binding:
        """Return which servers this side is bound to."""
        return Binding(**(self._read("binding") or {}))

    def bind(self, *, own: str | None = None, peer: str | None = None) -> None:
        """Bind this side; does nothing when it is bound so already."""
        before = self.binding()
        after = replace(before, own=before.own if own is None else own, peer=before.peer if peer is None else peer)
        if after != before:
            self._write("binding", after)

    def stream(self) -> StreamNote | None:
        """Return the newest stream into this side."""
        found = self._read("stream")
        return None if found is None else StreamNote(**found)

    def save_stream(self, note: StreamNote) -> None:
        """Keep a stream's values."""
        if self.stream() != note:
            self._write("stream", note)

    def leave_stream(self) -> None:
        """Note that this side no longer follows: what it commits from now on is its own."""
        note = self.stream()
        if note is not None and (note.joined or note.unbroken):
            self.save_stream(replace(note, joined=False, unbroken=False))

    def copy(self) -> CopyNote | None:
        """Return the copy that waits for its first tail."""
        found = self._read("copy")
        return None if found is None else CopyNote(**found)

    def save_copy(self, note: CopyNote | None) -> None:
        """Keep it; None when it is no longer true."""
        if note is not None:
            self._write("copy", note)
        else:
            (self._directory / "copy.json").unlink(missing_ok=True)

    def workload(self) -> Workload:
        """Return what was last seen of the active side's workload."""
        found = self._read("workload") or {}
        return Workload(**{**found, "disabled_events": tuple(found.get("disabled_events", ()))})

    def save_workload(self, workload: Workload) -> None:
        """Keep it, when it changed."""
        if self.workload() != workload:
            self._write("workload", workload)

    def settings(self) -> Settings:
        """Return what was recorded of the server's settings."""
        found = self._read("settings")
        if found is None:
            return Settings()
        return Settings(server=found["server"], before={name: Setting(**one) for name, one in found["before"].items()})

    def save_settings(self, settings: Settings) -> None:
        """Keep it."""
        self._write("settings", settings)

    def forget(self) -> None:
        """Forget everything but our identity (the end of protection)."""
        for name in ("binding", "stream", "copy", "workload", "settings"):
            (self._directory / f"{name}.json").unlink(missing_ok=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        return durable.read(self._directory / f"{name}.json")

    def _write(self, name: str, note: Any) -> None:
        durable.make_directory(self._directory)
        durable.write(self._directory / f"{name}.json", asdict(note))
