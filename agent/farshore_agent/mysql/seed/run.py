"""A whole seed from beginning to end: the order of its steps, and what is started over when something breaks.

    check both sides, close the target -> [ empty it -> snapshot -> rows and keys ] -> foreign keys -> accounts ->
    views and other programs -> equal? -> history

What stands in brackets is repeated with a new snapshot when the old one is lost, a bounded number of times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.board import Board, TableWork
from farshore_agent.mysql.seed.catalogue import Catalogue, Program, read_catalogue
from farshore_agent.mysql.seed.epoch import Epoch, open_epoch
from farshore_agent.mysql.seed.errors import (
    ConnectionLost,
    EpochLost,
    Interruption,
    SeedCancelled,
    SeedError,
    SeedTransient,
    StatementFailed,
)
from farshore_agent.mysql.seed.footprint import Footprint, remove_footprint, write_footprint
from farshore_agent.mysql.seed.inspect import accounts_of
from farshore_agent.mysql.seed.keeper import Keeper
from farshore_agent.mysql.seed.loader import Loader, add_foreign_keys
from farshore_agent.mysql.seed.meter import Meter
from farshore_agent.mysql.seed.objects import create_programs, drop_programs, require_equal
from farshore_agent.mysql.seed.prepare import Prepared, prepare
from farshore_agent.mysql.seed.servers import READER, Server
from farshore_agent.mysql.seed.session import Connect, Session
from farshore_agent.mysql.seed.system_rows import (
    KeptRows,
    read_accounts,
    read_time_zones,
    write_accounts,
    write_time_zones,
)
from farshore_agent.mysql.seed.tables import count_again, create_tables, plan_works
from farshore_agent.mysql.seed.target import (
    LOADING,
    clear_target,
    create_containers,
    permanent,
    restore_settings,
    take_over_history,
)
from farshore_agent.mysql.seed.values import Phase, Progress, Remark, SeedResult, SeedSettings

Given = TypeVar("Given")
GONE = frozenset({1049, 1146, 1305, 1360, 1539})
"""No such schema, table, routine, trigger, event: dropped between being listed and being read."""


def run_seed(
    source: Connect,
    target: Connect,
    settings: SeedSettings,
    *,
    journal_start: str,
    state_directory: Path,
    progress: Callable[[Progress], None],
    cancelled: Callable[[], bool],
    before_first_write: Callable[[], None],
    overwrite: bool = False,
) -> SeedResult:
    """Make the target an exact copy of the source, and its gtid_executed that of the copy.

    `source` logs in as the source's replication account, `target` as the target's admin. The snapshot contains the
    GTID set `journal_start`. `before_first_write` is called once, before anything is changed on the target. `progress`
    and `cancelled` are called from threads of the seed, one at a time, about every second and five times a second.

    Without `overwrite` a target with data or accounts of somebody else is refused (TargetHoldsData). Afterwards the
    target is read_only and offline_mode, durably: the engine makes it super_read_only, starts the channel, and calls
    `reopen_target`.

    Can be called again after any end of it. Blocks; raises SeedTransient, SeedPermanent, SeedCancelled.
    """
    servers = Server(source, "source"), Server(target, "target")
    seed = _Seed(*servers, settings, Meter(progress), journal_start=journal_start, state_directory=state_directory)
    keeper = Keeper(seed.meter, cancelled, settings.progress_seconds, servers)
    seed.keeper = keeper
    try:
        with keeper:
            return seed.run(overwrite=overwrite, before_first_write=before_first_write)
    except (Interruption, SeedError) as error:
        if keeper.failure is not None:
            raise keeper.failure from error
        if keeper.cancelled:
            raise SeedCancelled("the seed was cancelled; the target is closed and not usable") from error
        if isinstance(error, StatementFailed):
            raise permanent(error, "a statement of the seed") from error
        if isinstance(error, Interruption):
            raise SeedTransient(str(error)) from error
        raise
    finally:
        for server in servers:
            server.end_all()


@dataclass(frozen=True, kw_only=True, slots=True)
class _Copied:
    """What an epoch has left behind on the target: all rows and keys."""

    catalogue: Catalogue
    works: tuple[TableWork, ...]
    accounts: tuple[KeptRows, ...]
    time_zones: tuple[KeptRows, ...]
    gtid_executed: str
    lock_held_seconds: float
    types_lost: dict[str, int]


class _Seed:
    keeper: Keeper

    def __init__(
        self,
        source: Server,
        target: Server,
        settings: SeedSettings,
        meter: Meter,
        *,
        journal_start: str,
        state_directory: Path,
    ) -> None:
        self.source = source
        self.target = target
        self.settings = settings
        self.meter = meter
        self.journal_start = journal_start
        self.state_directory = state_directory
        self.epochs = 0

    def run(self, *, overwrite: bool, before_first_write: Callable[[], None]) -> SeedResult:
        source, target = self._open(self.source), self._open(self.target)
        prepared = prepare(
            source,
            target,
            self.settings,
            state_directory=self.state_directory,
            overwrite=overwrite,
            before_first_write=before_first_write,
        )
        self.source.end(source)
        self.target.end(target)
        copied = self._copy_rows(prepared)
        rows, size = self.meter.totals()
        remarks = self._finish(prepared, copied)
        return SeedResult(
            gtid_executed=copied.gtid_executed,
            source_uuid=prepared.source["server_uuid"],
            target_uuid=prepared.target["server_uuid"],
            tables=len(copied.works),
            rows=rows,
            bytes=size,
            epochs=self.epochs,
            lock_held_seconds=copied.lock_held_seconds,
            skipped_accounts=prepared.skipped,
            remarks=(*prepared.remarks, *remarks, *_types_lost(copied.types_lost)),
        )

    # -- the part that a lost snapshot repeats ---------------------------------------------------------------------

    def _copy_rows(self, prepared: Prepared) -> _Copied:
        last: Exception | None = None
        while self.epochs < self.settings.epochs_max:
            self.epochs += 1
            self.meter.begin_epoch()
            try:
                return self._epoch(prepared)
            except (EpochLost, ConnectionLost) as error:
                self.keeper.watch(None)
                if self.keeper.stopping:
                    raise
                last = error
            for server in (self.source, self.target):
                server.end_all()
        raise SeedTransient(f"{self.epochs} snapshots were lost, the last one: {last}") from last

    def _epoch(self, prepared: Prepared) -> _Copied:
        self._on_target(lambda writer: clear_target(writer, self.settings.skip_schemas))
        seen: list[Catalogue] = []

        def read_definitions(control: Session) -> None:
            # Under a backup lock what was read once stays true; without one it has to be read close to the snapshot.
            if not seen or self.settings.ddl == "retry":
                seen.append(self._read_catalogue(control))

        self.source.end(self._open(self.source))  # waits for a source that restarts
        epoch = open_epoch(
            self.source,
            self.settings,
            journal_start=self.journal_start,
            cancelled=lambda: self.keeper.stopping,
            before_lock=read_definitions,
        )
        try:
            self.keeper.watch(epoch)
            return self._copy_tables(prepared, epoch, seen[-1])
        finally:
            self.keeper.watch(None)
            epoch.close()

    def _copy_tables(self, prepared: Prepared, epoch: Epoch, catalogue: Catalogue) -> _Copied:
        self._require_unchanged(epoch, catalogue)
        reader = epoch.take()
        accounts = read_accounts(reader, prepared.skip)
        time_zones = read_time_zones(reader)
        epoch.give_back(reader)
        control = self._open(self.source)
        carried = tuple(str(each) for each in accounts_of(control))
        works = plan_works(control, catalogue, self.settings)
        self.source.end(control)
        write_footprint(
            self.state_directory,
            Footprint(
                target_uuid=prepared.target["server_uuid"],
                schemas=tuple(schema.name for schema in catalogue.schemas),
                accounts=carried,
            ),
        )
        for work in works:
            self.meter.expect(work.label, rows=work.rows_estimate, bytes=work.bytes_estimate)
        self.meter.enter(Phase.TABLES)
        started = self._on_target(lambda writer: self._make_tables(writer, catalogue, works))
        loader = Loader(
            source=self.source,
            target=self.target,
            open_writer=lambda: self._open(self.target),
            epoch=epoch,
            board=Board(works),
            meter=self.meter,
            settings=self.settings,
        )
        loader.run(rows_done=lambda: self._leave_source(epoch, catalogue))
        self._on_target(lambda writer: count_again(writer, works, self.meter, started))
        return _Copied(
            catalogue=catalogue,
            works=works,
            accounts=accounts,
            time_zones=time_zones,
            gtid_executed=epoch.gtid_executed,
            lock_held_seconds=epoch.held_seconds,
            types_lost=dict(loader.types_lost),
        )

    def _make_tables(self, writer: Session, catalogue: Catalogue, works: tuple[TableWork, ...]) -> int:
        clear_target(writer, self.settings.skip_schemas)
        create_containers(writer, catalogue)
        return create_tables(writer, works)

    def _leave_source(self, epoch: Epoch, catalogue: Catalogue) -> None:
        """All rows are here: prove that the definitions were theirs, and let the source go."""
        self._require_unchanged(epoch, catalogue)
        self.keeper.watch(None)
        epoch.close()
        self.meter.enter(Phase.KEYS)

    def _require_unchanged(self, epoch: Epoch, catalogue: Catalogue) -> None:
        if not epoch.still_locked():
            raise EpochLost("the backup lock was lost: definitions on the source may have changed")
        if self.settings.ddl == "retry":
            control = self._open(self.source)
            now = self._read_catalogue(control)
            self.source.end(control)
            if now.digest() != catalogue.digest():
                raise EpochLost("DDL ran on the source since the snapshot")

    def _read_catalogue(self, session: Session) -> Catalogue:
        try:
            return read_catalogue(session, self.settings.skip_schemas)
        except StatementFailed as error:
            if error.code in GONE:
                raise EpochLost(f"DDL ran on the source while definitions were read: {error}") from error
            raise

    # -- what follows, each step repeatable ----------------------------------------------------------------------

    def _finish(self, prepared: Prepared, copied: _Copied) -> tuple[Remark, ...]:
        self._on_target(lambda writer: add_foreign_keys(writer, copied.works))
        self._on_target(lambda writer: write_time_zones(writer, copied.time_zones))
        remarks = self._on_target(lambda writer: self._write_objects(writer, prepared, copied))
        invalid = tuple(remark.subject for remark in remarks)
        self.meter.enter(Phase.FINISH)
        self._on_target(lambda writer: self._compare(writer, copied.catalogue, invalid))
        orphans = self._on_target(_orphan_definers)
        self._on_target(lambda writer: restore_settings(writer, prepared.target))
        self._on_target(lambda writer: take_over_history(writer, copied.gtid_executed))
        remove_footprint(self.state_directory)
        self.meter.report()
        return (*remarks, *orphans)

    def _write_objects(self, writer: Session, prepared: Prepared, copied: _Copied) -> tuple[Remark, ...]:
        """Accounts, then what belongs to them: a view that calls a function is refused while that has no definer.

        What an interrupted try made goes first, because with a routine its grants are dropped.
        """
        self.meter.enter(Phase.ACCOUNTS)
        drop_programs(writer, copied.catalogue)
        self._write_accounts(writer, prepared, copied)
        self.meter.enter(Phase.OBJECTS)
        return create_programs(writer, copied.catalogue, self._is_invalid)

    def _is_invalid(self, view: Program) -> bool:
        """Whether a view cannot be used on the source either."""
        control = self._open(self.source)
        try:
            control.ask(f"SELECT 1 FROM {sql.name(view.schema, view.name)} LIMIT 0")  # noqa: S608 - quoted
        except StatementFailed:
            return True
        finally:
            self.source.end(control)
        return False

    def _write_accounts(self, writer: Session, prepared: Prepared, copied: _Copied) -> None:
        # Restrictions in accounts have a meaning only with it; without it accounts that have some are refused.
        wanted, present = prepared.source.on("partial_revokes"), prepared.target.on("partial_revokes")
        if wanted:
            writer.ask("SET PERSIST partial_revokes=ON")
        write_accounts(writer, copied.accounts, prepared.skip)
        if present and not wanted:
            writer.ask("SET PERSIST partial_revokes=OFF")

    def _compare(self, writer: Session, catalogue: Catalogue, invalid: tuple[str, ...]) -> None:
        for statement in READER:
            writer.ask(statement)
        require_equal(catalogue, read_catalogue(writer, self.settings.skip_schemas), invalid)

    def _on_target(self, step: Callable[[Session], Given]) -> Given:
        """Run an idempotent step in a fresh session of the target, again when the session is cut off."""
        last: ConnectionLost | None = None
        for _ in range(self.settings.chunk_tries):
            writer = self._open(self.target, *LOADING)
            try:
                return step(writer)
            except ConnectionLost as error:
                if error.side == "source" or self.keeper.stopping:
                    raise
                last = error
                self.target.kill(writer)
            except StatementFailed as error:
                raise permanent(error, "a step of the seed") from error
            finally:
                self.target.end(writer)
        raise SeedTransient(f"the target cut the connection {self.settings.chunk_tries} times: {last}") from last

    def _open(self, server: Server, *also: str) -> Session:
        return server.open_within(self.settings.reconnect_seconds, lambda: self.keeper.stopping, also=also)


def _orphan_definers(writer: Session) -> tuple[Remark, ...]:
    """Name definers that have no account: what they own cannot run until somebody makes one."""
    rows = writer.ask(
        "SELECT DISTINCT definer FROM (SELECT definer FROM information_schema.routines UNION SELECT definer FROM "
        "information_schema.triggers UNION SELECT definer FROM information_schema.events UNION SELECT definer FROM "
        "information_schema.views) d WHERE definer NOT IN (SELECT CONCAT(user, '@', host) FROM mysql.user) ORDER BY 1"
    ).names()
    if not rows:
        return ()
    names = ", ".join(row[0] for row in rows)
    message = "definers of routines, triggers, events or views that have no account on the target"
    return (Remark(code="definer_missing", subject=names, message=message),)


def _types_lost(tables: dict[str, int]) -> tuple[Remark, ...]:
    return tuple(
        Remark(
            code="json_type_lost",
            subject=table,
            message=f"{count} values inside JSON documents arrived with their text but not with their inner type "
            "(TIMESTAMP became DATETIME; BLOB and BIT of columns became strings)",
        )
        for table, count in sorted(tables.items())
    )
