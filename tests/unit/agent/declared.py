"""A declared pair and the messages of a reconciler about it."""

from __future__ import annotations

from itertools import count

from farshore_schema.documents import MySQLPair
from farshore_schema.messages import Assign, Command, Unassign
from farshore_schema.roles import Consent, Evidence, Receipt, Side, StepName

SECRET = "env:FARSHORE_TEST_PASSWORD"

_numbers = count(1)


def document(name: str = "orders", **changes: object) -> MySQLPair:
    """Return a declaration."""
    sites = {
        f"site_{side}": {
            "site": site,
            "host": "127.0.0.1",
            "port": port,
            "admin": {"user": f"farshore_{site}", "password": SECRET},
            "replication": {"user": f"repl_{site}", "password": SECRET},
        }
        for side, site, port in (("a", "tokyo", 3306), ("b", "osaka", 3307))
    }
    return MySQLPair.model_validate({"name": name, **sites, **changes})


def assign(side: Side, *, pair: str = "orders", incarnation: int = 1, generation: int = 1, **changes: object) -> Assign:
    """Return an assignment."""
    return Assign(
        pair=pair,
        side=side,
        incarnation=incarnation,
        generation=generation,
        document=document(pair, **changes),
        active=None,
        epoch=0,
    )


def unassign(side: Side, *, pair: str = "orders", incarnation: int = 1) -> Unassign:
    return Unassign(pair=pair, side=side, incarnation=incarnation)


def command(
    step: StepName,
    side: Side,
    epoch: int,
    *,
    pair: str = "orders",
    token: int = 1,
    incarnation: int = 1,
    intent: str = "",
    receipt: Receipt | None = None,
    consent: Consent | None = None,
    evidence: Evidence | None = None,
    operation: str = "op",
) -> Command:
    """Return a command; every call is another sending unless `intent` says otherwise."""
    return Command.model_validate(
        {
            "intent": intent or f"intent-{next(_numbers)}",
            "pair": pair,
            "side": side,
            "incarnation": incarnation,
            "token": token,
            "epoch": epoch,
            "step": step,
            "receipt": receipt,
            "consent": consent,
            "evidence": evidence,
            "operation": operation,
        }
    )
