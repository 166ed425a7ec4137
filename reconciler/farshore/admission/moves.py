"""What a declared `primary_site` asks for, decided on names and numbers alone (R11).

`primary_site` is never read to keep a role: it only ever causes one operation, at the moment a PUT changes it. After a
move made elsewhere the old value is not work: it is refused until a person adopts the move or acknowledges its epoch.
"""

from typing import Literal, NamedTuple


class Wish(NamedTuple):
    """One side of the question: the declared sites and the decision in the store."""

    declared: str | None  # primary_site of the new document
    before: str | None  # primary_site of the present one
    acknowledged: int | None  # acknowledge_epoch of the new document
    active: str  # the active site by the store's decision
    epoch: int


Move = Literal["stay", "adopt", "switchover", "moved_elsewhere"]


def wanted(wish: Wish) -> Move:
    """Return what the declaration asks for.

    stay: nothing about roles. adopt: the declaration now names the site that is active already. switchover: one planned
    operation. moved_elsewhere: the declaration is older than a move that it did not make.
    """
    if wish.declared is None:
        return "stay"
    if wish.declared == wish.active:
        return "adopt" if wish.before != wish.active else "stay"
    if wish.declared != wish.before or wish.acknowledged == wish.epoch:
        return "switchover"
    return "moved_elsewhere"
