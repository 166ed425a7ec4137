"""The workers: copy rows and build keys until the board is empty, and mend what can be mended on the way.

A cut connection costs the piece in work: it is taken away from the target and copied again, from the same session of
the snapshot when the target was cut, from a spare one when the source was. What cannot be mended stops all workers.
"""

# ruff: noqa: S608 - names are quoted by sql.py

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.board import Board, BuildKeys, CopyRows, TableWork
from farshore_agent.mysql.seed.epoch import Epoch
from farshore_agent.mysql.seed.errors import (
    ConnectionLost,
    EpochLost,
    Interruption,
    SeedPermanent,
    SeedTransient,
    StatementFailed,
)
from farshore_agent.mysql.seed.meter import Meter
from farshore_agent.mysql.seed.relay import Copied, copy_piece
from farshore_agent.mysql.seed.servers import Server, explained, kill_ids
from farshore_agent.mysql.seed.session import NullRow, Session
from farshore_agent.mysql.seed.table_ddl import constraint_name, key_name
from farshore_agent.mysql.seed.values import SeedSettings

TABLE_CHANGED = frozenset({1412, 1146, 1054, 1049})
"""Table definition has changed; no such table, column, schema: DDL ran on the source since the snapshot."""
TRY_AGAIN = frozenset({1205, 1213, 1317, 3024})
"""Lock wait timeout, deadlock, interrupted by somebody's KILL QUERY, execution time exceeded."""
NO_ROOM = frozenset({3, 1021, 1026, 1114, 1878})
DDL_BUFFER_BYTES = 32 * 1024 * 1024
"""For sorting the keys of one table; the default, 1 MiB, makes many passes over a large table."""


class Loader:
    """Copies all tables of one epoch with a few threads."""

    def __init__(
        self,
        *,
        source: Server,
        open_writer: Callable[[], Session],
        target: Server,
        epoch: Epoch,
        board: Board,
        meter: Meter,
        settings: SeedSettings,
    ) -> None:
        self._source = source
        self._open_writer = open_writer
        self._target = target
        self._epoch = epoch
        self._board = board
        self._meter = meter
        self._settings = settings
        self.types_lost: dict[str, int] = {}
        """Tables with values inside JSON documents whose inner type could not be carried, and how many."""
        self._failure: BaseException | None = None
        self._guard = threading.Lock()

    def run(self, rows_done: Callable[[], None]) -> None:
        """Copy all rows and build all keys; call `rows_done` once, in this thread, when the last row is there.

        Raises SeedError or EpochLost, with all workers ended.
        """
        workers = [
            threading.Thread(target=self._work, name=f"seed-{number}", daemon=True)
            for number in range(self._settings.workers)
        ]
        for worker in workers:
            worker.start()
        try:
            self._board.rows_done.wait()
            if self._failure is None:
                rows_done()
        except BaseException as error:  # noqa: BLE001 - kept, and raised below when the workers have ended
            self._fail(error)
        for worker in workers:
            worker.join()
        if self._failure is not None:
            raise self._failure

    def _work(self) -> None:
        writer: Session | None = None
        try:
            writer = self._open_writer()
            while (task := self._board.next()) is not None:
                self._meter.working(task.work.label, on=True)
                if isinstance(task, CopyRows):
                    writer = self._copy(writer, task)
                else:
                    writer = self._build_keys(writer, task)
                    self._meter.finished()
                self._meter.working(task.work.label, on=False)
                if self._board.done(task):
                    self._meter.copied(task.work.label)
        except BaseException as error:  # noqa: BLE001 - a thread's end; `run` raises it
            self._fail(error)
        finally:
            if writer is not None:
                self._target.end(writer)

    def _fail(self, error: BaseException) -> None:
        """Keep the first failure and stop everybody: those in the middle of something lose their connections."""
        with self._guard:
            first = self._failure is None
            if first:
                self._failure = error
        if first:
            self._board.stop()
            self._source.abort_all()
            self._target.abort_all()
            self._epoch.close()
            self._board.rows_done.set()

    # -- rows ---------------------------------------------------------------------------------------------------

    def _copy(self, writer: Session, task: CopyRows) -> Session:
        """Copy one piece, again after every mendable failure; return the writer to go on with."""
        layout, long_rows = task.work.layout, False
        for left in range(self._settings.chunk_tries - 1, -1, -1):
            reader = self._epoch.take()
            tally = _Tally(self._meter, task.work.label)
            try:
                copied = copy_piece(reader, writer, layout, task.piece, tally.moved, long_rows=long_rows)
            except NullRow:
                tally.undo()
                layout, long_rows = layout.with_tokens(), True
                self._recover(reader)
                writer = self._renew(writer, task)
            except (ConnectionLost, StatementFailed) as error:
                tally.undo()
                self._judge(error, left)
                if isinstance(error, ConnectionLost) and error.side == "source":
                    self._epoch.lose(reader)
                else:
                    self._recover(reader)
                writer = self._renew(writer, task)
            else:
                self._epoch.give_back(reader)
                tally.settle(copied)
                if copied.types_lost:
                    with self._guard:
                        known = self.types_lost.get(task.work.label, 0)
                        self.types_lost[task.work.label] = known + copied.types_lost
                return writer
        raise SeedTransient(f"{task.piece.label} was cut off {self._settings.chunk_tries} times")

    def _judge(self, error: ConnectionLost | StatementFailed, left: int) -> None:
        """Raise when another try cannot help."""
        if self._failure is not None:
            raise error  # everything is being stopped; the reason is kept already
        if isinstance(error, ConnectionLost):
            if not left:
                raise SeedTransient(f"cut off {self._settings.chunk_tries} times, last: {error}") from error
            return
        if error.side == "source" and error.code in TABLE_CHANGED:
            raise EpochLost(f"DDL ran on the source since the snapshot: {error}") from error
        if error.code in NO_ROOM:
            raise SeedPermanent(
                str(error), hint=f"make room on the {error.side}'s disk, then repeat the seed"
            ) from error
        refused = explained(error)
        if isinstance(refused, SeedPermanent):
            raise refused from error
        if error.code not in TRY_AGAIN:
            raise SeedPermanent(
                str(error), hint=f"see what the {error.side} answered; the seed can be repeated once it is mended"
            ) from error
        if not left:
            raise SeedTransient(str(error)) from error

    def _recover(self, reader: Session) -> None:
        """Stop what a reader is sending and give it back: KILL QUERY ends the statement, not the snapshot."""
        try:
            if reader.sending:
                control = self._source.open()
                try:
                    control.ask(f"KILL QUERY {reader.id:d}")
                finally:
                    self._source.end(control)
                reader.drop_rows()
            # A KILL that came after the end of the rows hits whatever is asked next; let it hit nothing.
            try:
                reader.ask("DO 0")
            except StatementFailed:
                reader.ask("DO 0")
        except Interruption:
            self._epoch.lose(reader)
        else:
            self._epoch.give_back(reader)

    def _renew(self, writer: Session, task: CopyRows) -> Session:
        """Return a fresh writer with the piece taken away from the target, whatever became of the old session."""
        self._target.kill(writer)
        last: Interruption | None = None
        for _ in range(self._settings.chunk_tries):
            fresh = self._open_writer()
            try:
                kill_ids(fresh, [writer.id])
                self._take_away(fresh, task)
            except Interruption as error:
                self._target.kill(fresh)
                last = error
                if isinstance(error, StatementFailed) and error.code not in TRY_AGAIN:
                    self._judge(error, 0)
            else:
                return fresh
        raise SeedTransient(f"the target lost the connection again and again: {last}") from last

    @staticmethod
    def _take_away(writer: Session, task: CopyRows) -> None:
        """Remove what a piece may have left: a COMMIT whose answer got lost has happened or not."""
        table = sql.name(task.work.layout.schema, task.work.layout.table)
        if task.piece.whole:
            writer.ask(f"DROP TABLE IF EXISTS {table}")
            writer.ask(f"USE {sql.name(task.work.layout.schema)}")
            writer.ask(task.work.plan.create)
        else:
            writer.ask(f"DELETE FROM {table}{task.piece.where}")

    # -- keys ---------------------------------------------------------------------------------------------------

    def _build_keys(self, writer: Session, task: BuildKeys) -> Session:
        """Add the keys that are not there yet; repeatable, because ALTER TABLE happens wholly or not at all."""
        work = task.work
        for left in range(self._settings.chunk_tries - 1, -1, -1):
            try:
                add_keys(writer, work)
            except (ConnectionLost, StatementFailed) as error:
                self._judge(error, left)
                self._target.kill(writer)
                fresh = self._open_writer()
                kill_ids(fresh, [writer.id])
                writer = fresh
            else:
                return writer
        raise SeedTransient(f"keys of {work.label}: cut off {self._settings.chunk_tries} times")


class _Tally:
    """What one try of a piece has told the meter, so that a failed try can be taken back."""

    def __init__(self, meter: Meter, label: str) -> None:
        self._meter = meter
        self._label = label
        self._rows = 0
        self._bytes = 0

    def moved(self, rows: int, size: int) -> None:
        self._rows += rows
        self._bytes += size
        self._meter.add(self._label, rows=rows, bytes=size)

    def undo(self) -> None:
        self._meter.add(self._label, rows=-self._rows, bytes=-self._bytes)
        self._rows = self._bytes = 0

    def settle(self, copied: Copied) -> None:
        self._meter.add(self._label, rows=copied.rows - self._rows, bytes=copied.bytes - self._bytes)


def add_keys(writer: Session, work: TableWork) -> None:
    """Add the secondary keys of one table that it does not have yet."""
    if not work.plan.keys:
        return
    schema, table = work.layout.schema, work.layout.table
    there = {
        row[0]
        for row in writer.ask(
            "SELECT DISTINCT index_name FROM information_schema.statistics "
            f"WHERE table_schema={sql.text(schema)} AND table_name={sql.text(table)}"
        ).names()
    }
    writer.ask(f"SET SESSION innodb_ddl_buffer_size={DDL_BUFFER_BYTES}")
    for clauses in work.plan.keys:
        missing = [clause for clause in clauses if key_name(clause) not in there]
        if missing:
            _alter(writer, schema, table, missing)


def add_foreign_keys(writer: Session, works: Sequence[TableWork]) -> None:
    """Add the foreign keys that are not there yet; every table must have its keys by now."""
    question = "SELECT constraint_schema, table_name, constraint_name FROM information_schema.referential_constraints"
    there = set(writer.ask(question).names())
    for work in works:
        schema, table = work.layout.schema, work.layout.table
        clauses = work.plan.foreign_keys
        missing = [each for each in clauses if (schema, table, constraint_name(each) or "") not in there]
        if missing:
            _alter(writer, schema, table, missing)


def _alter(writer: Session, schema: str, table: str, clauses: list[bytes]) -> None:
    # Names of referenced tables are relative to the current schema.
    writer.ask(f"USE {sql.name(schema)}")
    writer.ask(f"ALTER TABLE {sql.name(schema, table)} ".encode("utf-8", "surrogateescape") + b", ".join(clauses))
