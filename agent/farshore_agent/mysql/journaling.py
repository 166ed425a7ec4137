"""The journal of this site as the engine uses it: opened for a stream, asked, detached, sealed, ended.

It turns the journal's own errors and stop codes into those of the errors table. The two processes outlive the engine
and are found again (I10). It knows no roles; which epoch and which server is the caller's to say.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from farshore_agent import durable, processes
from farshore_agent.mysql.channel import Feed
from farshore_agent.mysql.connections import Address
from farshore_agent.mysql.journal import client as journal
from farshore_agent.mysql.journal.control import ControlConnection
from farshore_agent.mysql.journal.disk import write_private
from farshore_agent.mysql.journal.errors import JournalError
from farshore_agent.mysql.journal.errors import Transient as JournalTransient
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.launch import RECEIVER, RolePaths
from farshore_agent.mysql.notes import Notes, StreamNote
from farshore_schema.documents import JournalSettings
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, Transient
from farshore_schema.quantities import bytes_of, seconds

FIRST_SEGMENT_SECONDS: Final = 30.0
"""How long the receiver may take to reach the source and begin its segment."""
POLL_SECONDS: Final = 0.02
GLANCE_SECONDS: Final = 0.4
KEPT_MAX: Final = 10_000
"""Journals of pairs that were deleted and declared again, kept side by side."""
RETRY_SECONDS: Final = 1.0

_CODES: Final = {
    journal.StopCode.SOURCE_REPLACED: "source_replaced",
    journal.StopCode.SOURCE_PURGED: "source_purged",
    journal.StopCode.HISTORY_RESET: "history_reset",
    journal.StopCode.SOURCE_UNSUITABLE: "unsuitable_server",
    journal.StopCode.CHECKSUM_OFF: "unsuitable_server",
    journal.StopCode.UNKNOWN_EVENT: "unsuitable_server",
    journal.StopCode.CORRUPT_EVENT: "corrupt_journal",
    journal.StopCode.GAP: "corrupt_journal",
    journal.StopCode.DISK_FULL: "disk_full",
    journal.StopCode.DISK_FAILED: "corrupt_journal",
    journal.StopCode.AUTH_FAILED: "access_denied",
    journal.StopCode.SOURCE_UNREACHABLE: "unreachable",
    journal.StopCode.INTERNAL: "bug",
}
_HEALS: Final = frozenset({journal.StopCode.SOURCE_UNREACHABLE})
"""A stream that waits for these goes on by itself, with nothing for a person to do here."""
_ERRORS: Final = {
    "FormatTooNew": "newer_format",
    "CorruptEvent": "corrupt_journal",
    "EpochTooOld": "stale_epoch_command",
}


class Journal:
    """The journal below one seat."""

    def __init__(self, directory: Path, *, pair: str, settings: JournalSettings, source: Address, notes: Notes) -> None:
        self.directory = directory / "journal"
        self._pair, self._settings, self._source, self._notes = pair, settings, source, notes

    # ---- opening

    def open(self, note: StreamNote) -> journal.ReceiverClient:
        """Let the receiver follow the stream `note` names, after every older stream was sealed. Idempotent.

        The receiver attaches by itself; `await_segment` waits for it.
        """
        with _translated():
            self._seal_older(note)
            receiver = journal.ensure_receiver(self._config(note))
            if receiver.state().mode in (journal.Mode.DETACHED, journal.Mode.STOPPED):
                receiver.attach()
            return receiver

    def revive(self, note: StreamNote) -> None:
        """Start the receiver of an opened stream again when its process died; a detached one stays detached.

        One that only hangs is left alone.
        """
        if processes.find(RolePaths(self.directory, RECEIVER).pid) is None:
            with _translated():
                journal.ensure_receiver(self._config(note))

    def serve(self, note: StreamNote) -> Feed:
        """Let the server process run; return where and as whom the standby's channel logs in. Idempotent."""
        with _translated():
            server = journal.ensure_server(self._config(note))
            login, at = server.credentials(), server.state()
            return Feed(at.host, at.port, login.user, login.password_file.read_text().strip())

    def await_segment(self, cancelled: Callable[[], bool]) -> journal.ReceiverState:
        """Wait until the receiver has its segment and the source sends to it; raises why it does not."""
        deadline = time.monotonic() + FIRST_SEGMENT_SECONDS
        while True:
            state = self.state()
            if state is not None and state.sealed:
                raise Permanent("not_possible_now", f"the journal's segment {state.segment} was sealed")
            if state is not None and state.segment and state.connected:
                return state
            if state is not None and state.stopped is not None and not state.stopped.retried:
                raise stopped_error(state.stopped)
            if cancelled():
                raise Transient("not_possible_now", "cancelled while the journal was being opened")
            if time.monotonic() > deadline:
                why = state.stopped.message if state is not None and state.stopped else "no answer of the source"
                raise Transient("timeout", f"the journal does not receive yet: {why}", retry_seconds=RETRY_SECONDS)
            time.sleep(POLL_SECONDS)

    # ---- asking

    def receiver(self) -> journal.ReceiverClient | None:
        """Return the running receiver, None when none runs."""
        with _translated():
            return journal.adopt_receiver(self.directory) if self.directory.exists() else None

    def state(self) -> journal.ReceiverState | None:
        """Return what the receiver says of itself, None when none runs."""
        with _translated():
            try:
                return journal.ReceiverClient(self.directory).state() if self.directory.exists() else None
            except JournalTransient:
                return None

    def glance(self) -> journal.ReceiverState | None:
        """Return the same for observation: a receiver that does not answer within `GLANCE_SECONDS` counts as none."""
        paths = RolePaths(self.directory, RECEIVER)
        if not paths.socket.exists():
            return None
        with _translated():
            try:
                with contextlib.closing(
                    ControlConnection(paths.socket, paths.token, timeout_seconds=GLANCE_SECONDS)
                ) as connection:
                    return journal.ReceiverState.decode(connection.call("state"))
            except JournalTransient:
                return None

    def received(self) -> GtidSet:
        """Return everything that was ever received into the newest segment and what that one began with.

        The receiver is started for it when it does not run: only it knows what is whole in its files. Where another
        server answers than its own, it stops there and asks it for nothing.
        """
        with _translated():
            note, records = self._notes.stream(), self._records()
            if note is None or not records:
                return GtidSet()
            if records[-1].sealed:
                return GtidSet.parse(records[-1].end or "")
            newest = self._config(_stream_of(records[-1], note))
            state = (journal.adopt_receiver(self.directory) or journal.ensure_receiver(newest)).state()
            if not state.segment:
                raise Permanent("corrupt_journal", "the journal's open segment cannot be read")
            return GtidSet.parse(state.end_gtid_set)

    def set_aside(self) -> int:
        """Return how many journals of earlier streams lie beside this one."""
        return len(list(self.directory.parent.glob(f"{self.directory.name}.kept-*")))

    def segments(self) -> int:
        """Return how many segments are kept."""
        with _translated():
            return len(self._records())

    def has_begun(self, note: StreamNote) -> bool:
        """Return whether the stream has a segment: from then on its start is what the journal says, not the note."""
        with _translated():
            return any(
                (each.epoch, each.from_uuid) == (note.epoch, note.source_uuid.lower()) for each in self._records()
            )

    def keep_password(self) -> None:
        """Hand a rotated secret to the receiver, which reads it at every dial. Does nothing before the first stream."""
        if (self.directory / "format.json").exists():
            with _translated():
                self._password_file()

    # ---- ending

    def detach(self) -> str | None:
        """Stop receiving, durably, and return the end of what was received; None where nothing ever was. Idempotent.

        The receiver is started for it when it does not run: only it knows what is whole in its files.
        """
        with _translated():
            note, records = self._notes.stream(), self._records()
            if note is None or not records:
                return None
            if records[-1].sealed:
                return records[-1].end
            receiver = journal.adopt_receiver(self.directory) or journal.ensure_receiver(self._config(note))
            return receiver.detach()

    def seal(self) -> None:
        """End the open segment for ever (R21) and the receiver with it. Idempotent."""
        with _translated():
            note, records = self._notes.stream(), self._records()
            if note is not None and records and not records[-1].sealed:
                receiver = journal.adopt_receiver(self.directory) or journal.ensure_receiver(self._config(note))
                receiver.seal()
            self._stop_receiver()

    def stop(self) -> None:
        """End both processes; the files stay. Idempotent."""
        with _translated():
            self._stop_receiver()
            server = journal.adopt_server(self.directory) if self.directory.exists() else None
            if server is not None:
                server.stop()

    def end(self) -> None:
        """End protection here: seal, end both processes, and set the files aside, so that a new pair starts afresh."""
        self.seal()
        self.stop()
        if self.directory.exists():
            names = (self.directory.with_name(f"journal.kept-{number}") for number in range(1, KEPT_MAX))
            self.directory.rename(next(name for name in names if not name.exists()))

    def mark(self, durable_set: str) -> None:
        """Tell retention what this side holds durably. Does nothing while no receiver runs."""
        with _translated(), contextlib.suppress(JournalTransient):
            journal.ReceiverClient(self.directory).set_retention_mark(durable_set)

    # ---- parts

    def _records(self) -> list[journal.SegmentRecord]:
        return journal.catalogue(self.directory) if (self.directory / "format.json").exists() else []

    def _stop_receiver(self) -> None:
        receiver = journal.adopt_receiver(self.directory) if self.directory.exists() else None
        if receiver is not None:
            receiver.stop()

    def _seal_older(self, note: StreamNote) -> None:
        records = self._records()
        if not records or records[-1].sealed:
            return
        last = records[-1]
        if (last.epoch, last.from_uuid) == (note.epoch, note.source_uuid.lower()):
            return
        older = self._config(_stream_of(last, note))
        receiver = journal.adopt_receiver(self.directory) or journal.ensure_receiver(older)
        receiver.seal()

    def _config(self, note: StreamNote) -> journal.JournalConfig:
        identity = self._notes.identity()
        return journal.JournalConfig(
            directory=self.directory,
            pair=self._pair,
            epoch=note.epoch,
            source=journal.Source(
                host=self._source.host,
                port=self._source.port,
                user=self._source.user,
                password_file=self._password_file(),
                expected_server_uuid=note.source_uuid,
                tls=journal.Tls(
                    mode=journal.TlsMode(self._source.tls_mode),
                    ca_file=Path(self._source.tls_ca_file) if self._source.tls_ca_file else None,
                ),
            ),
            server_id=identity.server_id,
            server_uuid=identity.server_uuid,
            listen_host=note.listen_host,
            retention=journal.Retention(
                age_seconds=seconds(self._settings.keep), bytes=bytes_of(self._settings.keep_bytes)
            ),
            start_gtid_set=note.start_gtid_set,
        )

    def _password_file(self) -> Path:
        """Write the resolved secret where only the receiver looks for it (0600), when it is not there so already."""
        path = self.directory / "secrets" / "source.password"
        text = self._source.password() + "\n"
        if not path.exists() or _digest(path.read_text()) != _digest(text):
            durable.make_directory(path.parent)
            write_private(path, text)
        return path


def _stream_of(segment: journal.SegmentRecord, note: StreamNote) -> StreamNote:
    """Return the stream that a segment belongs to, which may be an older one than the noted one."""
    return replace(note, epoch=segment.epoch, source_uuid=segment.from_uuid, start_gtid_set=segment.start, joined=False)


def stopped_code(reason: journal.StopReason | None) -> str:
    """Return the code of a stream that cannot go on by itself, "" for one that can."""
    return "" if reason is None or reason.code in _HEALS else _CODES[reason.code]


def stopped_body(reason: journal.StopReason) -> ErrorBody:
    """Return the whole story of a stopped stream."""
    return ErrorBody(
        code=_CODES[reason.code],
        message=reason.message,
        hint=reason.hint,
        current=dict(reason.evidence) or None,
    )


def stopped_error(reason: journal.StopReason) -> FarshoreError:
    """Return a stopped stream as an error to raise."""
    body = stopped_body(reason)
    if reason.retried:
        return Transient(body.code, body.message, hint=body.hint, retry_seconds=RETRY_SECONDS)
    error = Permanent(body.code, body.message, hint=body.hint)
    error.current = body.current
    return error


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the journal's errors into ours."""
    try:
        yield
    except JournalTransient as error:
        raise Transient("timeout", f"journal: {error.message}", retry_seconds=error.retry_seconds) from error
    except JournalError as error:
        codes = {
            "FormatTooNew": "newer_format",
            "CorruptEvent": "corrupt_journal",
            "EpochTooOld": "stale_epoch_command",
        }
        hint = getattr(error, "hint", "")
        raise Permanent(codes.get(error.code, "not_possible_now"), f"journal: {error.message}", hint=hint) from error
    except OSError as error:
        raise Permanent("corrupt_journal", f"journal: {error}", hint="check the disk of the gateway") from error


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
