"""A small record that is replaced often, durably, in a tenth of the time that replacing a file takes.

One file of two slots and a mark, allocated once. A write goes to the slot that does not hold the last synced record and
is synced with one `fdatasync` that has no metadata to write; clients wait for some of these writes during a switchover.
A crash in the middle of a write leaves the other slot, whole. The mark names the newest synced write and is written
after it, unsynced: where it survived and the slot that it names did not, the file is damaged, and an older record is
never taken for the newest. It knows nothing of what is kept; readers in other processes need no lock.

Layout: slot 0, slot 1 (`SLOT_BYTES` each, or more where a record did not fit), then `MARK_BYTES` of mark. Each begins
with one line `farshore-record FORMAT SEQUENCE LENGTH SHA256` and goes on with LENGTH bytes of JSON. The checksum covers
the size of the slots too: a file that was cut short does not pass for a smaller one.
"""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, Literal, NamedTuple

from farshore_agent import durable
from farshore_schema.errors import Permanent

FORMAT: Final = 1
SLOT_BYTES: Final = 8192
MARK_BYTES: Final = 512
HEAD_SPARE_BYTES: Final = 64  # the header's numbers grow
SLOT_BYTES_MAX: Final = 4 * 1024 * 1024
READS_MAX: Final = 5  # tries of a reader that meets a writer half-way
_MAGIC: Final = b"farshore-record"

WritePoint = Literal["begun", "half", "written", "synced", "marked", "made"]


class Content(NamedTuple):
    """What a slot holds."""

    sequence: int
    body: dict[str, object]


class Layout(NamedTuple):
    """A file as it was read: where the newest content is."""

    slot_bytes: int
    slot: int  # that holds `content`
    content: Content


def _go_on(_point: WritePoint) -> None:
    """Do nothing: the default of the fault points."""


def read(path: Path) -> Layout | None:
    """Return the newest content, None when nothing was ever written.

    Raises Permanent("newer_format") for a file of a newer release and Permanent("corrupt_record") for one that is not
    what was written: a damaged file is never taken for an absent or an older one.
    """
    error: Permanent | None = None
    for _ in range(READS_MAX):
        try:
            raw = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as failed:
            raise durable.corrupt(path, f"cannot be read ({failed.strerror})") from failed
        try:
            return parse(raw, path)
        except Permanent as refused:
            error = refused  # perhaps a writer was half-way between what was read first and what was read last
            if refused.code != "corrupt_record":
                break
    raise error or durable.corrupt(path, "cannot be read")


def parse(raw: bytes, path: Path) -> Layout:
    """Return the newest content of a file's bytes; raises as `read` does. `path` only names it."""
    slot_bytes = (len(raw) - MARK_BYTES) // 2
    if slot_bytes < SLOT_BYTES or len(raw) != 2 * slot_bytes + MARK_BYTES:
        raise durable.corrupt(path, "is not of the size that was written")
    slots = [_content(raw[number * slot_bytes : (number + 1) * slot_bytes], slot_bytes, path) for number in (0, 1)]
    mark = _content(raw[2 * slot_bytes :], slot_bytes, path)
    newest = max((content.sequence, number) for number, content in enumerate(slots) if content) if any(slots) else None
    if newest is None or (mark is not None and mark.sequence > newest[0]):
        raise durable.corrupt(path, "does not match its checksum")
    content = slots[newest[1]]
    assert content is not None  # noqa: S101 - it was just counted
    return Layout(slot_bytes, newest[1], content)


class SlotFile:
    """The only writer of one file."""

    def __init__(self, path: Path, *, fault: Callable[[WritePoint], None] = _go_on) -> None:
        self.path = path
        self._fault = fault
        self._at: Layout | None = None  # the newest synced content and where it is

    def load(self) -> dict[str, object] | None:
        """Return the newest content, synced now whatever was before; None when nothing was ever written.

        What a dead writer left may only be in the page cache, or behind a disk error that nobody heard of.
        """
        found = read(self.path)
        if found is None:
            return None
        self._at = found
        try:
            self._sync()  # before the other slot is touched: what was found may be in the page cache alone
        except OSError as error:
            raise durable.unwritable(self.path, error) from error
        self.save(found.content.body)
        return found.content.body

    def save(self, body: dict[str, object], *, sync: bool = True) -> None:
        """Replace the content; with `sync` it is durable on return, without it may be forgotten by a power cut.

        Raises Transient("disk_full") or Permanent("corrupt_record"); the old or the new content is there then.
        """
        try:
            if self._at is None or not self._fits(body):
                self._make(body)
            else:
                self._overwrite(self._at, body, sync=sync)
        except OSError as error:
            raise durable.unwritable(self.path, error) from error

    def _sync(self) -> None:
        handle = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.fdatasync(handle)
        finally:
            os.close(handle)

    def _fits(self, body: dict[str, object]) -> bool:
        return self._at is not None and len(_encoded(0, body, 0)) + HEAD_SPARE_BYTES <= self._at.slot_bytes

    def _overwrite(self, at: Layout, body: dict[str, object], *, sync: bool) -> None:
        sequence, slot = at.content.sequence + 1, 1 - at.slot
        raw = _encoded(sequence, body, at.slot_bytes)
        handle = os.open(self.path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            self._fault("begun")
            half = len(raw) // 2
            _write(handle, raw[:half], slot * at.slot_bytes)
            self._fault("half")
            _write(handle, raw[half:], slot * at.slot_bytes + half)
            self._fault("written")
            if not sync:
                return  # `_at` stays: the next write goes to the same slot, over this one
            os.fdatasync(handle)
            self._fault("synced")
            _write(handle, _encoded(sequence, {}, at.slot_bytes), 2 * at.slot_bytes)
            self._fault("marked")
        finally:
            os.close(handle)
        self._at = Layout(at.slot_bytes, slot, Content(sequence, body))

    def _make(self, body: dict[str, object]) -> None:
        """Write the file anew, as a whole: the first time, and when the content has outgrown its slots."""
        sequence = self._at.content.sequence + 1 if self._at is not None else 1
        needed = len(_encoded(sequence, body, 0)) + HEAD_SPARE_BYTES
        slot_bytes = SLOT_BYTES
        while slot_bytes < needed:
            slot_bytes *= 2
        if slot_bytes > SLOT_BYTES_MAX:
            raise durable.corrupt(self.path, f"would need {needed} bytes")
        raw = _encoded(sequence, body, slot_bytes)
        durable.make_directory(self.path.parent)
        # Every block is written once, so that no later write has to allocate one.
        whole = raw.ljust(2 * slot_bytes, b"\0") + _encoded(sequence, {}, slot_bytes).ljust(MARK_BYTES, b"\0")
        durable.replace(self.path, whole)
        self._fault("made")
        self._at = Layout(slot_bytes, 0, Content(sequence, body))


def _encoded(sequence: int, body: dict[str, object], slot_bytes: int) -> bytes:
    text = json.dumps(body, sort_keys=True, separators=(",", ":")).encode()
    return b"%s %d %d %d %s\n%s" % (_MAGIC, FORMAT, sequence, len(text), _digest(sequence, text, slot_bytes), text)


def _digest(sequence: int, text: bytes, slot_bytes: int) -> bytes:
    return hashlib.sha256(b"%d:%d:%s" % (slot_bytes, sequence, text)).hexdigest().encode()


def _content(raw: bytes, slot_bytes: int, path: Path) -> Content | None:
    """Return what a slot or the mark holds, None when it is empty or torn; raises for a newer format."""
    line, newline, rest = raw.partition(b"\n")
    words = line.split(b" ")
    if not newline or len(words) < 2 or words[0] != _MAGIC:
        return None
    if words[1].isdigit() and int(words[1]) > FORMAT:
        raise Permanent(
            "newer_format",
            f"{path} has format {int(words[1])}; this release knows {FORMAT}",
            hint="install the newer release of Farshore again; nothing was changed",
        )
    if len(words) != 5 or not (words[2].isdigit() and words[3].isdigit()):
        return None
    sequence, text = int(words[2]), rest[: int(words[3])]
    if words[4] != _digest(sequence, text, slot_bytes):
        return None
    body = json.loads(text)
    return Content(sequence, body) if isinstance(body, dict) else None


def _write(handle: int, raw: bytes, offset: int) -> None:
    while raw:
        written = os.pwrite(handle, raw, offset)
        raw, offset = raw[written:], offset + written
