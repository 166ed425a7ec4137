"""GTID sets with tags: text, wire forms and set algebra.

A set maps a key (16 bytes of server uuid, tag; the empty tag is "no tag") to sorted, disjoint, non-adjacent half-open
intervals of transaction numbers. Text forms are those of `@@gtid_executed`; wire forms those of COM_BINLOG_DUMP_GTID
and of PREVIOUS_GTIDS events (mysql-server, libs/mysql/gtid and sql/rpl_gtid_set.cc). This module must not know files,
connections or events.
"""

from __future__ import annotations

import struct
import uuid
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import Self

from farshore_agent.mysql.journal.errors import Permanent

Key = tuple[bytes, str]
"""(uuid bytes, tag)"""
Interval = tuple[int, int]
"""[first, past the last)"""

GNO_MAX = (1 << 63) - 2
"""Largest transaction number of MySQL."""
TAG_CHARACTERS_MAX = 32
UUID_BYTES = 16

_U64 = struct.Struct("<Q")
_PAIR = struct.Struct("<QQ")
_UNTAGGED = 0
_TAGGED = 1


class GtidSyntaxError(Permanent):
    """A text or a byte string is no GTID set."""

    code = "GtidSyntaxError"

    def __init__(self, message: str) -> None:
        super().__init__(message, hint="Pass a set as @@GLOBAL.gtid_executed shows it, for example UUID:1-100:tag:1-5.")


class GtidSet:
    """A set of GTIDs. Mutated only by `add`, `add_interval` and `update`; the algebra returns new sets."""

    __slots__ = ("_intervals",)

    def __init__(self) -> None:
        self._intervals: dict[Key, list[Interval]] = {}

    # ---- text

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a set from text; blanks and newlines anywhere between parts are allowed, as MySQL prints them.

        Raises GtidSyntaxError.
        """
        made = cls()
        for part in text.split(","):
            if part.strip():
                made._parse_part([word.strip() for word in part.split(":")])
        return made

    def _parse_part(self, words: list[str]) -> None:
        try:
            owner = uuid.UUID(words[0]).bytes
        except ValueError as error:
            raise GtidSyntaxError(f"{words[0]!r} is no server uuid") from error
        if len(words) == 1:
            raise GtidSyntaxError(f"{words[0]} has no transaction numbers")
        tag = ""
        tag_used = True
        for word in words[1:]:
            if word[:1].isdigit():
                self._parse_interval((owner, tag), word)
                tag_used = True
                continue
            if not tag_used or not is_tag(word):
                raise GtidSyntaxError(f"{word!r} is neither a transaction number nor a tag")
            tag, tag_used = word.lower(), False
        if not tag_used:
            raise GtidSyntaxError(f"the tag {tag!r} has no transaction numbers")

    def _parse_interval(self, key: Key, word: str) -> None:
        first, dash, last = word.partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise GtidSyntaxError(f"{word!r} is no interval")
        low, high = int(first), int(last or first)
        if low < 1 or high < low or high > GNO_MAX:
            raise GtidSyntaxError(f"{word!r} is not an interval within 1..2^63-2")
        self.add_interval(key, low, high + 1)

    def __str__(self) -> str:
        owners: dict[bytes, list[str]] = {}
        for (owner, tag), intervals in sorted(self._intervals.items()):
            text = "".join(f":{low}" if high == low + 1 else f":{low}-{high - 1}" for low, high in intervals)
            owners.setdefault(owner, []).append(f":{tag}{text}" if tag else text)
        return ",".join(str(uuid.UUID(bytes=owner)) + "".join(parts) for owner, parts in owners.items())

    def __repr__(self) -> str:
        return f"GtidSet({str(self)!r})"

    # ---- building

    def add(self, key: Key, gno: int) -> None:
        """Add one transaction."""
        self.add_interval(key, gno, gno + 1)

    def add_interval(self, key: Key, low: int, high: int) -> None:
        """Add [low, high). Appending right after the highest known number, the usual case, costs O(1)."""
        held = self._intervals.get(key)
        if held is None:
            self._intervals[key] = [(low, high)]
            return
        last_low, last_high = held[-1]
        if low == last_high:
            held[-1] = (last_low, high)
        elif low > last_high:
            held.append((low, high))
        else:
            _merge(held, low, high)

    def update(self, other: GtidSet) -> None:
        """Add everything in `other`."""
        for key, intervals in other._intervals.items():
            for low, high in intervals:
                self.add_interval(key, low, high)

    def copy(self) -> GtidSet:
        made = GtidSet()
        made._intervals = {key: list(intervals) for key, intervals in self._intervals.items()}
        return made

    # ---- questions

    def contains(self, key: Key, gno: int) -> bool:
        held = self._intervals.get(key)
        if not held:
            return False
        at = bisect_right(held, (gno, GNO_MAX + 2)) - 1
        return at >= 0 and gno < held[at][1]

    def issubset(self, other: GtidSet) -> bool:
        return all(_covered(intervals, other._intervals.get(key, [])) for key, intervals in self._intervals.items())

    def count(self) -> int:
        """Number of transactions."""
        return sum(high - low for intervals in self._intervals.values() for low, high in intervals)

    def intervals(self) -> Iterator[tuple[Key, int, int]]:
        """Every interval as (key, first, past the last), ordered by key."""
        for key in sorted(self._intervals):
            for low, high in self._intervals[key]:
                yield key, low, high

    def __bool__(self) -> bool:
        return bool(self._intervals)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GtidSet) and self._intervals == other._intervals

    __hash__ = None  # type: ignore[assignment]  # mutable

    # ---- algebra

    def union(self, other: GtidSet) -> GtidSet:
        made = self.copy()
        made.update(other)
        return made

    def subtract(self, other: GtidSet) -> GtidSet:
        """What is here and not in `other`."""
        made = GtidSet()
        for key, intervals in self._intervals.items():
            left = _minus(intervals, other._intervals.get(key, []))
            if left:
                made._intervals[key] = left
        return made

    # ---- wire

    def encode(self) -> bytes:
        """The binary form; sets with tags use the tagged form (marker bytes 0 and 7 are 1)."""
        keys = sorted(self._intervals)
        tagged = any(tag for _, tag in keys)
        count = _U64.pack(len(keys))
        parts = [bytes([_TAGGED]) + count[:6] + bytes([_TAGGED])] if tagged else [count]
        for key in keys:
            owner, tag = key
            parts.append(owner)
            if tagged:
                parts.append(bytes([len(tag) << 1]) + tag.encode("ascii"))
            parts.append(_U64.pack(len(self._intervals[key])))
            parts.extend(_PAIR.pack(low, high) for low, high in self._intervals[key])
        return b"".join(parts)

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read the binary form; raises GtidSyntaxError on anything but exactly one whole set."""
        try:
            return cls._decode(raw)
        except (struct.error, IndexError, UnicodeDecodeError) as error:
            raise GtidSyntaxError("the bytes of a GTID set end too early or hold no ASCII tag") from error

    @classmethod
    def _decode(cls, raw: bytes) -> Self:
        made = cls()
        (count,) = _U64.unpack_from(raw, 0)
        tagged = raw[7] == _TAGGED
        if tagged:
            count = int.from_bytes(raw[1:7], "little")
        at = 8
        for _ in range(count):
            owner = raw[at : at + UUID_BYTES]
            at += UUID_BYTES
            tag = ""
            if tagged:
                length = raw[at] >> 1
                tag = raw[at + 1 : at + 1 + length].decode("ascii")
                if len(tag) != length or (tag and not is_tag(tag)):
                    raise GtidSyntaxError(f"{tag!r} is no tag")
                at += 1 + length
            (pairs,) = _U64.unpack_from(raw, at)
            at += 8
            for _ in range(pairs):
                low, high = _PAIR.unpack_from(raw, at)
                at += 16
                if not 1 <= low < high <= GNO_MAX + 1:
                    raise GtidSyntaxError(f"[{low}, {high}) is no interval of transaction numbers")
                made.add_interval((owner, tag), low, high)
        if at != len(raw):
            raise GtidSyntaxError(f"{len(raw) - at} bytes follow the GTID set")
        return made


def is_tag(word: str) -> bool:
    """Whether `word` can be a tag: a letter or underscore, then letters, digits, underscores, 32 in all."""
    if not word.isascii() or not 1 <= len(word) <= TAG_CHARACTERS_MAX:
        return False
    return (word[0].isalpha() or word[0] == "_") and word.replace("_", "a").isalnum()


def _merge(held: list[Interval], low: int, high: int) -> None:
    """Put [low, high) among sorted intervals, joining what it touches."""
    first = bisect_left(held, (low, 0))
    if first and held[first - 1][1] >= low:
        first -= 1
    past = first
    while past < len(held) and held[past][0] <= high:
        past += 1
    if past > first:
        low = min(low, held[first][0])
        high = max(high, held[past - 1][1])
    held[first:past] = [(low, high)]


def _covered(inner: list[Interval], outer: list[Interval]) -> bool:
    for low, high in inner:
        at = bisect_right(outer, (low, GNO_MAX + 2)) - 1
        if at < 0 or high > outer[at][1]:
            return False
    return True


def _minus(held: list[Interval], taken: list[Interval]) -> list[Interval]:
    left: list[Interval] = []
    at = 0
    for low, high in held:
        while at < len(taken) and taken[at][1] <= low:
            at += 1
        cut = at
        while cut < len(taken) and taken[cut][0] < high:
            if taken[cut][0] > low:
                left.append((low, taken[cut][0]))
            low = max(low, taken[cut][1])
            cut += 1
        if low < high:
            left.append((low, high))
    return left
