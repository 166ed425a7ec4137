"""Work is handed out once, keys after the last row of their table, and nobody waits for what never comes."""

from __future__ import annotations

import threading

from farshore_agent.mysql.seed.board import Board, BuildKeys, CopyRows, TableWork
from farshore_agent.mysql.seed.catalogue import Table
from farshore_agent.mysql.seed.pieces import Piece
from farshore_agent.mysql.seed.rows import RowFormat
from farshore_agent.mysql.seed.table_ddl import TablePlan


def work(name: str, *, size: int, pieces: int = 1) -> TableWork:
    """A table with some pieces."""
    table = Table(
        schema="s",
        name=name,
        engine="InnoDB",
        create=b"",
        columns=(),
        primary_key=(),
        rows_estimate=0,
        bytes_estimate=size,
    )
    return TableWork(
        layout=RowFormat.of("s", name, (), primary_key=False),
        plan=TablePlan(create=b"", keys=(), foreign_keys=()),
        pieces=tuple(Piece(table=table, after=number, upto=number + 1) for number in range(pieces)),
        label=name,
        rows_estimate=0,
        bytes_estimate=size,
    )


def test_rows_of_the_largest_come_first_and_keys_after_the_last_piece() -> None:
    """One worker sees every task once, in an order that keeps the source busy first."""
    board = Board([work("small", size=1), work("large", size=9, pieces=2)])
    seen = []
    lasts = []
    while (task := board.next()) is not None:
        seen.append((type(task), task.work.label))
        lasts.append(board.done(task))
    assert lasts == [False, True, True, False, False], "the last piece of a table is told as such"
    assert seen == [
        (CopyRows, "large"),
        (CopyRows, "large"),
        (CopyRows, "small"),
        (BuildKeys, "large"),
        (BuildKeys, "small"),
    ]
    assert board.rows_done.is_set()


def test_the_source_is_free_when_the_last_row_is_there() -> None:
    """Not before, and without waiting for keys; at once when there are no tables."""
    board = Board([work("a", size=1)])
    task = board.next()
    assert task is not None
    assert not board.rows_done.is_set()
    board.done(task)
    assert board.rows_done.is_set()
    assert Board([]).rows_done.is_set()
    assert Board([]).next() is None


def test_an_idle_worker_waits_for_keys_that_become_due() -> None:
    """While another copies the last piece there is nothing to do yet, but there will be."""
    board = Board([work("a", size=1)])
    copy = board.next()
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(board.next()))
    waiting.start()
    assert copy is not None
    board.done(copy)
    waiting.join(timeout=10)
    assert isinstance(found[0], BuildKeys)


def test_a_stop_frees_everybody() -> None:
    """Who waits is told that there is nothing more."""
    board = Board([work("a", size=1)])
    board.next()
    found: list[object] = []
    waiting = threading.Thread(target=lambda: found.append(board.next()))
    waiting.start()
    board.stop()
    waiting.join(timeout=10)
    assert found == [None]
