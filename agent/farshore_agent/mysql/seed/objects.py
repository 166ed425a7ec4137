"""Recreate views, routines, libraries, triggers and events as their authors made them, and prove that they are equal.

Each is created under the settings its text was written under: sql_mode, client character set, connection and database
collation, time zone, and the clock set to its time of creation, without which an event of the past is refused.

Events keep their state. That is safe because a standby's event scheduler is OFF, durably, and needed because after a
promotion they must run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.catalogue import Catalogue, Program
from farshore_agent.mysql.seed.errors import NotExact, StatementFailed
from farshore_agent.mysql.seed.session import Session
from farshore_agent.mysql.seed.table_ddl import without_counter
from farshore_agent.mysql.seed.target import permanent
from farshore_agent.mysql.seed.values import Remark

INVALID_VIEW = 1356
DIFFERENCES_SHOWN = 3
TEXT_SHOWN_CHARACTERS = 400

_BACK = (
    "SET NAMES utf8mb4",
    "SET SESSION character_set_results=NULL, time_zone='+00:00', timestamp=DEFAULT, sql_mode='NO_AUTO_VALUE_ON_ZERO'",
)


_PRESENT = (
    "SELECT routine_type, routine_schema, routine_name FROM information_schema.routines",
    "SELECT 'LIBRARY', library_schema, library_name FROM information_schema.libraries",
    "SELECT 'VIEW', table_schema, table_name FROM information_schema.views",
    "SELECT 'TRIGGER', trigger_schema, trigger_name FROM information_schema.triggers",
    "SELECT 'EVENT', event_schema, event_name FROM information_schema.events",
)


def drop_programs(writer: Session, catalogue: Catalogue) -> None:
    """Drop what an interrupted `create_programs` made in the schemas of `catalogue`."""
    schemas = {schema.name for schema in catalogue.schemas}
    for question in _PRESENT:
        for kind, schema, name in writer.ask(question).names():
            if schema in schemas:
                writer.ask(f"DROP {kind} IF EXISTS {sql.name(schema, name)}")


def create_programs(writer: Session, catalogue: Catalogue, is_invalid: Callable[[Program], bool]) -> tuple[Remark, ...]:
    """Create all of them; return a remark for each view that is invalid on the source too.

    `is_invalid` says whether a view that cannot be created cannot be used on the source either.
    """
    # Temporarily: a binary log makes the server ask for SUPER or this, also when the session writes no log.
    writer.ask("SET GLOBAL log_bin_trust_function_creators=ON")
    collations = {schema.name: schema.collation for schema in catalogue.schemas}
    views = [program for program in catalogue.programs if program.kind == "VIEW"]
    remarks: tuple[Remark, ...] = ()
    for kind in ("LIBRARY", "FUNCTION", "PROCEDURE", "VIEW", "TRIGGER", "EVENT"):
        if kind == "VIEW":
            remarks = _create_views(writer, views, is_invalid)
            continue
        for program in catalogue.programs:
            if program.kind == kind:
                try:
                    _create(writer, program, collations)
                except StatementFailed as error:
                    raise permanent(error, program.label) from error
    return remarks


def _create_views(
    writer: Session, views: Sequence[Program], is_invalid: Callable[[Program], bool]
) -> tuple[Remark, ...]:
    """Create views, which may be made of each other: go round until nothing moves."""
    todo = list(views)
    failed: dict[str, StatementFailed] = {}
    while todo:
        left = []
        for view in todo:
            try:
                _create(writer, view, {})
            except StatementFailed as error:
                failed[view.label] = error
                left.append(view)
        if len(left) == len(todo):
            break
        todo = left
    remarks = []
    for view in todo:
        if not is_invalid(view):
            raise permanent(failed[view.label], view.label)
        remarks.append(
            Remark(
                code="invalid_view",
                subject=f"{view.schema}.{view.name}",
                message="not carried: it cannot be used on the source either (what it needs is gone); drop it there",
            )
        )
    return tuple(remarks)


def _create(writer: Session, program: Program, collations: dict[str, str]) -> None:
    present = collations.get(program.schema, "")
    other_collation = program.database_collation and present and program.database_collation != present
    schema = sql.name(program.schema)
    writer.ask(f"USE {schema}")
    if other_collation:
        # The schema's collation of that time is part of the routine; it can be had only by setting it for a moment.
        writer.ask(f"ALTER DATABASE {schema} COLLATE {program.database_collation}")
    try:
        writer.ask(
            f"SET SESSION sql_mode={sql.plain(program.sql_mode)}, time_zone={sql.plain(program.time_zone)}, "
            f"timestamp={program.created or 'DEFAULT'}, character_set_client={program.client_character_set}, "
            f"collation_connection={program.connection_collation}"
        )
        writer.ask(program.create)
    finally:
        for statement in _BACK:
            writer.ask(statement)
        if other_collation:
            writer.ask(f"ALTER DATABASE {schema} COLLATE {present}")


def require_equal(source: Catalogue, target: Catalogue, left_out: Sequence[str]) -> None:
    """Raise NotExact unless the definitions on both sides are equal, `left_out` (`schema.view`) and counters aside."""
    there, here = _texts(source), _texts(target)
    for name in left_out:
        there.pop(f"view {name}", None)
    unequal = sorted(name for name in there.keys() | here.keys() if there.get(name) != here.get(name))
    if not unequal:
        return
    shown = "; ".join(
        f"{name}: {_short(there.get(name))} on the source, {_short(here.get(name))} on the target"
        for name in unequal[:DIFFERENCES_SHOWN]
    )
    raise NotExact(
        f"{len(unequal)} definitions did not arrive as they are on the source: {shown}",
        hint="the definition cannot be carried as text by this server version; simplify it on the source",
    )


def _texts(catalogue: Catalogue) -> dict[str, object]:
    found: dict[str, object] = {f"schema {schema.name}": schema.create for schema in catalogue.schemas}
    found |= {f"table {table.label}": without_counter(table.create) for table in catalogue.tables}
    return found | {program.label: program for program in catalogue.programs}


def _short(value: object) -> str:
    if value is None:
        return "missing"
    text = value.create if isinstance(value, Program) else value
    return repr(text)[:TEXT_SHOWN_CHARACTERS]
