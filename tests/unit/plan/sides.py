"""Sides of a pair as an agent would report them, for tests of the plan: good ones, changed where a test says so."""

from farshore_schema.roles import Consent, Facts, Operation, Receipt, Role

FENCE = Receipt("a", 4, "all of a")
CONSENT = Consent("b", "server-b", 2, "ann")
INITIAL = Role("a", 2, "initial")


def active(**changes: object) -> Facts:
    """Return side a, open in epoch 2."""
    good = Facts(
        token=1, epoch=2, fenced_epoch=0, promoted_epoch=2, db="up", server="server-a", writable=True, base="complete",
        peer_ready=True,
    )  # fmt: skip
    return good._replace(**changes)  # type: ignore[arg-type]


def standby(**changes: object) -> Facts:
    """Return side b, following in epoch 2."""
    good = Facts(
        token=1, epoch=2, fenced_epoch=2, promoted_epoch=0, db="up", server="server-b", writable=False, base="complete",
        receiving=True, applying=True, stream_epoch=2, peer_ready=True,
    )  # fmt: skip
    return good._replace(**changes)  # type: ignore[arg-type]


def fenced(**changes: object) -> Facts:
    """Return side a after the fence of a switchover in epoch 4."""
    return active(epoch=4, fenced_epoch=4, writable=False, receipt=FENCE)._replace(**changes)  # type: ignore[arg-type]


def switchover(**changes: object) -> Operation:
    """Return a switchover to b that is prepared."""
    return Operation("op", "switchover", "b", 4, prepared=True)._replace(**changes)  # type: ignore[arg-type]


def protect(**changes: object) -> Operation:
    """Return the request that protects a new pair."""
    return Operation("op", "protect", "b", 2, consent=CONSENT)._replace(**changes)  # type: ignore[arg-type]
