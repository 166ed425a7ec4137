"""Ranges of a large table hold every row exactly once, whatever the optimizer's estimates say."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farshore_agent.mysql.seed import pieces
from farshore_agent.mysql.seed.catalogue import Table
from farshore_agent.mysql.seed.pieces import Piece, cut
from farshore_agent.mysql.seed.rows import Column
from farshore_agent.mysql.seed.session import Answer


def table(*, rows: int, size: int, kind: str = "bigint", key: tuple[str, ...] = ("id",)) -> Table:
    """A table with statistics."""
    return Table(
        schema="s",
        name="t",
        engine="InnoDB",
        create=b"",
        columns=(Column(name="id", data_type=kind, character_set="", nullable=False, column_type=kind),),
        primary_key=key,
        rows_estimate=rows,
        bytes_estimate=size,
    )


class Estimating:
    """A source that knows its keys, and estimates as badly as it is told to."""

    def __init__(self, keys: list[int], error: random.Random) -> None:
        self.keys = keys
        self.error = error
        self.asked = 0

    def ask(self, statement: str) -> Answer:
        self.asked += 1
        if statement.startswith("SELECT MIN"):
            ends = (str(min(self.keys)), str(max(self.keys))) if self.keys else (None, None)
            return Answer(rows=(tuple(end.encode() if end else None for end in ends),))
        low, high = (int(number) for number in re.findall(r"[>=] (-?\d+)", statement))
        rows = sum(low < key <= high for key in self.keys)
        return Answer(rows=((b"",) * 9 + (str(int(rows * self.error.uniform(0, 3))).encode(),),))


def held(piece: Piece, key: int) -> bool:
    """Whether the WHERE of a piece selects a key."""
    return all(
        key > int(number) if operator == ">" else key <= int(number)
        for operator, number in re.findall(r"(>|<=) (-?\d+)", piece.where)
    )


@given(
    keys=st.lists(st.integers(-(2**63), 2**64 - 1), unique=True, min_size=1, max_size=60)
    | st.lists(st.integers(0, 200), unique=True, min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    bytes_max=st.integers(1, 3000),
)
def test_every_key_is_in_exactly_one_piece(keys: list[int], seed: int, bytes_max: int) -> None:
    """Also keys that were written after the statistics, below the least and above the greatest."""
    source = Estimating(keys, random.Random(seed))
    found = cut(source, table(rows=len(keys), size=len(keys) * 100), bytes_max=bytes_max)  # type: ignore[arg-type]
    for key in [*keys, min(keys) - 5, max(keys) + 5]:
        assert sum(held(piece, key) for piece in found) == 1


@pytest.mark.parametrize(
    "odd",
    [
        table(rows=10, size=10),
        table(rows=10**6, size=10**9, kind="varchar"),
        table(rows=10**6, size=10**9, key=()),
        table(rows=0, size=10**9),
    ],
    ids=["small", "key of text", "no key", "no statistics"],
)
def test_other_tables_stay_whole(odd: Table) -> None:
    """Small ones, and those whose primary key does not begin with an integer."""
    (piece,) = cut(Estimating([1], random.Random(0)), odd, bytes_max=1000)  # type: ignore[arg-type]
    assert piece.whole
    assert piece.where == ""


def test_the_number_of_pieces_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """An estimate that never gets small does not cut for ever."""
    monkeypatch.setattr(pieces, "PIECES_MAX", 16)
    source = Estimating(list(range(0, 100_000, 50)), random.Random(1))
    assert len(cut(source, table(rows=10**9, size=10**12), bytes_max=1)) <= 17  # type: ignore[arg-type]
    assert source.asked < 100
