"""GTID sets agree with a naive model of numbered pairs, in text, on the wire and in algebra."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farshore_agent.mysql.journal.gtid import GNO_MAX, GtidSet, GtidSyntaxError, is_tag

OWNERS = [uuid.UUID(int=number).bytes for number in (1, 2, 1 << 127)]
TAGS = ["", "blue", "_g2", "a" * 32]
Pairs = set[tuple[tuple[bytes, str], int]]

keys = st.tuples(st.sampled_from(OWNERS), st.sampled_from(TAGS))
pairs = st.sets(st.tuples(keys, st.integers(1, 40)), max_size=60)
untagged = st.sets(st.tuples(st.tuples(st.sampled_from(OWNERS), st.just("")), st.integers(1, 40)), max_size=60)


def build(model: Pairs, order: list[tuple[tuple[bytes, str], int]] | None = None) -> GtidSet:
    made = GtidSet()
    for key, gno in order or model:
        made.add(key, gno)
    return made


def members(gtids: GtidSet) -> Pairs:
    return {(key, gno) for key, low, high in gtids.intervals() for gno in range(low, high)}


@given(st.lists(st.tuples(keys, st.integers(1, 40)), max_size=80))
def test_adding_in_any_order_gives_the_same_canonical_set(order: list[tuple[tuple[bytes, str], int]]) -> None:
    """Intervals stay sorted, disjoint and not adjacent, whatever the order and however often something is added."""
    made = build(set(order), order)
    assert members(made) == set(order)
    assert made.count() == len(set(order))
    assert made == build(set(), sorted(set(order)))
    last: dict[tuple[bytes, str], int] = {}
    for key, low, high in made.intervals():
        assert low < high
        assert low > last.get(key, -1)
        last[key] = high


@given(st.lists(st.tuples(keys, st.integers(1, 30), st.integers(1, 12)), max_size=30))
def test_intervals_merge_as_their_members_do(intervals: list[tuple[tuple[bytes, str], int, int]]) -> None:
    """Adding an interval equals adding each of its numbers."""
    made = GtidSet()
    model: Pairs = set()
    for key, low, length in intervals:
        made.add_interval(key, low, low + length)
        model |= {(key, gno) for gno in range(low, low + length)}
    assert members(made) == model


@given(pairs, pairs)
def test_algebra_agrees_with_sets(left: Pairs, right: Pairs) -> None:
    """Union, difference, subset, membership and equality are those of plain sets, and change no operand."""
    a, b = build(left), build(right)
    assert members(a.union(b)) == left | right
    assert members(a.subtract(b)) == left - right
    assert a.issubset(b) == (left <= right)
    assert (a == b) == (left == right)
    assert bool(a) == bool(left)
    assert all(a.contains(*pair) == (pair in left) for pair in left | right)
    assert (members(a), members(b)) == (left, right)


@given(pairs)
def test_text_and_wire_forms_round_trip(model: Pairs) -> None:
    """What is written in either form reads back as the same set, tags included."""
    made = build(model)
    assert GtidSet.parse(str(made)) == made
    assert GtidSet.decode(made.encode()) == made
    copied = made.copy()
    copied.add((OWNERS[0], ""), 1000)
    assert members(made) == model


@given(untagged)
def test_sets_without_tags_use_the_old_wire_form(model: Pairs) -> None:
    """Old readers understand sets without tags: eight bytes of count, then uuids and intervals."""
    raw = build(model).encode()
    assert int.from_bytes(raw[:8], "little") == len({key for key, _ in model})


def test_text_as_mysql_prints_it() -> None:
    """Newlines, blanks, upper case, several tags and single numbers read as MySQL means them."""
    text = (
        "3E11FA47-71CA-11E1-9E33-C80AA9429562:1-3:11:47-49,\n"
        "4e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:Blue:5:7-8:green:9223372036854775806"
    )
    made = GtidSet.parse(text)
    assert str(made) == (
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-3:11:47-49,"
        "4e11fa47-71ca-11e1-9e33-c80aa9429562:1-2:blue:5:7-8:green:9223372036854775806"
    )
    assert made.contains((uuid.UUID("4e11fa47-71ca-11e1-9e33-c80aa9429562").bytes, "green"), GNO_MAX)


def test_tagged_wire_bytes_are_those_of_the_server() -> None:
    """The tagged form: marker, count in six bytes, marker, then uuid, tag with its doubled length, intervals."""
    made = GtidSet.parse("00000000-0000-0000-0000-000000000001:1-2:ab:4")
    owner = bytes(15) + b"\x01"
    one = (1).to_bytes(8, "little")
    assert made.encode() == (
        b"\x01\x02\0\0\0\0\0\x01"
        + owner + b"\x00" + one + one + (3).to_bytes(8, "little")
        + owner + b"\x04ab" + one + (4).to_bytes(8, "little") + (5).to_bytes(8, "little")
    )  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:0",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:5-4",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:tag",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:a:b:1",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:" + "t" * 33 + ":1",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:9223372036854775807",
        "3e11fa47-71ca-11e1-9e33-c80aa9429562:1x",
    ],
)
def test_wrong_text_is_refused(text: str) -> None:
    """No wrong text becomes a set, not even a smaller one."""
    with pytest.raises(GtidSyntaxError):
        GtidSet.parse(text)


@given(pairs.filter(bool), st.data())
def test_cut_or_padded_wire_forms_are_refused(model: Pairs, data: st.DataObject) -> None:
    """A set that lost its end, or has something behind it, is refused instead of read in part."""
    raw = build(model).encode()
    cut = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises(GtidSyntaxError):
        GtidSet.decode(raw[:cut])
    with pytest.raises(GtidSyntaxError):
        GtidSet.decode(raw + b"\0")


@given(st.binary(max_size=64))
def test_any_bytes_are_a_set_or_refused(raw: bytes) -> None:
    """Garbage from the network raises the one documented error."""
    try:
        made = GtidSet.decode(raw)
    except GtidSyntaxError:
        return
    assert GtidSet.parse(str(made)) == made


def test_tags() -> None:
    """A tag is a letter or underscore and then letters, digits, underscores, 32 in all."""
    assert is_tag("a1_")
    assert is_tag("_")
    assert not any(map(is_tag, ["", "1a", "a-b", "é", "a" * 33]))
