"""Looking at both endpoints of a declaration without changing anything: for dry runs and for `doctor`.

Each gateway sees its own server with `admin` and the other one with `replication` (R4); an endpoint that cannot be
looked at is a finding that says why, and everything else is still said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from farshore_agent.engines import Look
from farshore_agent.mysql import pair_rules, rules
from farshore_agent.mysql.connections import address, dial, endpoint
from farshore_agent.mysql.portrait import Portrait, paint
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import FarshoreError
from farshore_schema.observed import Finding
from farshore_schema.roles import SIDES, Side, peer


def look(document: MySQLPair, own: Side, existing: bool, secret: Callable[[str], str]) -> Look:
    """Return what this gateway sees of both servers."""
    findings: list[Finding] = []
    portraits: dict[Side, Portrait] = {}
    for side in (own, peer(own)):
        try:
            portraits[side] = _portrait(document, side, own, secret)
        except FarshoreError as error:
            findings.append(_refusal(error, side))
    for side in SIDES:
        if side in portraits:
            findings += rules.of_server(portraits[side], document)
    if len(portraits) == len(SIDES):
        source = _source(document, portraits, existing)
        findings += pair_rules.of_pair(portraits[source], portraits[peer(source)], document)
    return Look(
        findings=_once(findings),
        servers={side: portrait.server for side, portrait in portraits.items()},
        empty={side: portrait.empty for side, portrait in portraits.items()},
    )


def _portrait(document: MySQLPair, side: Side, own: Side, secret: Callable[[str], str]) -> Portrait:
    with dial(address(document, side, "admin" if side == own else "replication", secret)) as session:
        return paint(session, document.name)


def _source(document: MySQLPair, portraits: dict[Side, Portrait], existing: bool) -> Side:
    """Return the side whose data the other one gets: of a running pair the open one, of a new one the declared one."""
    open_sides = [side for side in SIDES if not portraits[side].on("super_read_only")]
    if existing and len(open_sides) == 1:
        return open_sides[0]
    named = document.primary_site
    return "b" if named is not None and named == endpoint(document, "b").site else "a"


def _refusal(error: FarshoreError, side: Side) -> Finding:
    return Finding(
        code=error.code, severity="error", message=error.message, hint=error.hint, field=error.field, side=side
    )


def _once(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(dict.fromkeys(findings))
