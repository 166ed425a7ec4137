"""The durable record of each (pair, side): what this agent promised and may never forget (R5).

One file per side, replaced as a whole and synced before the effect that it allows. A record that is damaged or written
by a newer release is never taken for "no record": the side then obeys nothing and says so. It knows nothing of engines
or transports; role probes read the same files from another process.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final, cast, get_args

from farshore_agent import durable, slots
from farshore_schema.roles import SIDES, Base, Receipt, Record, Side

RECORD_FILE: Final = "record"
NAME_MAX: Final = 63  # as documents.Name


def side_directory(root: Path, pair: str, side: Side) -> Path:
    """Return where everything of one side is kept; raises ValueError for what is no name (a path, for example)."""
    plain = pair.replace("-", "")
    if not (plain.isascii() and plain.isalnum()) or pair != pair.lower() or len(pair) > NAME_MAX or side not in SIDES:
        raise ValueError(f"{pair!r} ({side!r}) does not name a side")
    return root / "sides" / pair / side


class FileKeeper:
    """Keeps one record in one file; the only writer of that file. Loads from memory what it saved."""

    def __init__(
        self, root: Path, pair: str, side: Side, *, fault: Callable[[slots.WritePoint], None] | None = None
    ) -> None:
        self._pair, self._side = pair, side
        path = side_directory(root, pair, side) / RECORD_FILE
        self._file = slots.SlotFile(path) if fault is None else slots.SlotFile(path, fault=fault)
        self._durable: Record | None = None  # what is known to be on disk
        self._newest: Record | None = None  # the same, but for intents that a power cut may take

    @property
    def path(self) -> Path:
        """Return the file."""
        return self._file.path

    def load(self) -> Record:
        """Return the newest record, an empty one where there has never been any."""
        if self._newest is None:
            content = self._file.load()
            found = Record() if content is None else decode(content, self.path, self._pair, self._side)
            self._durable = self._newest = found
        return self._newest

    def save(self, record: Record) -> None:
        """Return once `record` is durable; raises Transient("disk_full") or Permanent("corrupt_record").

        Intents alone are written without waiting for the disk: a side that forgets that an order took effect carries
        it out again, as after a crash right before this call.
        """
        if self._durable is None:
            self.load()
        only_intents = self._durable is not None and self._durable._replace(intents=record.intents) == record
        self._newest = self._durable  # until it is known to be written, the older one holds
        self._file.save(encode(record, self._pair, self._side), sync=not only_intents)
        self._newest = record
        if not only_intents:
            self._durable = record


def read_record(path: Path, pair: str, side: Side) -> Record | None:
    """Return the record in a file, None when there has never been any; raises as `slots.read` does."""
    found = slots.read(path)
    return None if found is None else decode(found.content.body, path, pair, side)


def parse_record(raw: bytes, path: Path, pair: str, side: Side) -> Record:
    """Return the record in a file's bytes; raises as `slots.parse` does."""
    return decode(slots.parse(raw, path).content.body, path, pair, side)


def encode(record: Record, pair: str, side: Side) -> dict[str, object]:
    """Return the record as plain values, with the side it belongs to."""
    return {
        "pair": pair,
        "side": side,
        **record._asdict(),
        "receipt": None if record.receipt is None else record.receipt._asdict(),
        "intents": list(record.intents),
    }


def decode(content: dict[str, object], path: Path, pair: str, side: Side) -> Record:
    """Return the record of plain values; raises Permanent("corrupt_record") when it is not one of this very side."""
    if (content.get("pair"), content.get("side")) != (pair, side):
        raise durable.corrupt(path, f"belongs to {content.get('pair')!r} {content.get('side')!r}, not to {pair} {side}")
    numbers: dict[str, int] = {}
    for name in ("token", "epoch", "fenced_epoch", "promoted_epoch", "stream_epoch"):
        value = content.get(name)
        if type(value) is not int or value < 0:
            raise durable.corrupt(path, f"holds no valid {name}")
        numbers[name] = value
    base, enrolled, intents = content.get("base"), content.get("enrolled"), content.get("intents")
    seeded_for = content.get("seeded_for", "")
    if (
        base not in get_args(Base)
        or not isinstance(enrolled, bool)
        or not isinstance(seeded_for, str)
        or not isinstance(intents, list)
        or not all(isinstance(intent, str) for intent in intents)
    ):
        raise durable.corrupt(path, "holds fields of the wrong type")
    return Record(
        **numbers,
        base=cast(Base, base),
        receipt=_receipt(content.get("receipt"), path),
        intents=tuple(intents),
        enrolled=enrolled,
        seeded_for=seeded_for,
    )


def _receipt(value: object, path: Path) -> Receipt | None:
    if value is None:
        return None
    if isinstance(value, dict) and set(value) == set(Receipt._fields):
        side, epoch, position = value["side"], value["epoch"], value["position"]
        if side in SIDES and type(epoch) is int and isinstance(position, str):
            return Receipt(side, epoch, position)
    raise durable.corrupt(path, "holds no valid receipt")
