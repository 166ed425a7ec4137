"""What one side's agent says of it: the durable record, what the engine sees, and the work under way, as one report.

Pure: the same inputs give the same report. It knows no engine, no session and no time.
"""

from dataclasses import dataclass
from typing import Literal

from farshore_agent.commands import is_fenced
from farshore_agent.engines import Seen
from farshore_schema.observed import Finding, SeedProgress, SideReport
from farshore_schema.roles import Receipt, Record


@dataclass(frozen=True, kw_only=True)
class Work:
    """What this agent process has under way or has done since it started; a restart forgets it, and may."""

    seeding: bool = False
    seed: SeedProgress | None = None  # of the seed under way, or of the last one
    draining: Receipt | None = None
    drained: Receipt | None = None
    prepared_epoch: int = 0
    proved_for: str = ""
    violation: Finding | None = None  # the fence was found broken, and no fence was ordered since (R13)


def assemble(record: Record, seen: Seen, work: Work) -> SideReport:
    """Return the report of one side."""
    findings = (*seen.findings, work.violation) if work.violation is not None else seen.findings
    return SideReport(
        token=record.token,
        epoch=record.epoch,
        fenced_epoch=record.fenced_epoch,
        promoted_epoch=record.promoted_epoch,
        enrolled=record.enrolled,
        db=seen.db,
        server=seen.server,
        server_version=seen.server_version,
        writable=seen.writable,
        receipt=_standing_receipt(record, seen),
        base=record.base,
        receiving=seen.receiving,
        applying=seen.applying,
        stream_epoch=record.stream_epoch,
        prepared_epoch=work.prepared_epoch,
        proved_for=work.proved_for,
        drained=work.drained,
        draining=work.draining,
        seeding=work.seeding,
        seeded_for=record.seeded_for,
        zero=seen.zero,
        stopped=seen.stopped,
        position=seen.position,
        durability=_durability(seen),
        peer_ready=seen.peer_ready,
        seed=work.seed,
        stream=seen.stream,
        findings=findings,
        stopped_error=seen.stopped_error,
    )


def is_violated(record: Record, seen: Seen, work: Work) -> bool:
    """Return whether a side that gave its receipt (or broke its fence before) accepts writes."""
    promised = record.receipt is not None or work.violation is not None
    return seen.db == "up" and seen.writable and promised and is_fenced(record)


def _standing_receipt(record: Record, seen: Seen) -> Receipt | None:
    """Return the receipt while the fence in its epoch was just seen to hold: unknown is not good."""
    receipt = record.receipt
    if receipt is None or receipt.epoch != record.fenced_epoch or not is_fenced(record):
        return None
    return receipt if seen.fence_holds and not seen.writable else None


def _durability(seen: Seen) -> Literal["full", "relaxed", "unknown"]:
    return "full" if seen.durability == "full" else "relaxed" if seen.durability == "relaxed" else "unknown"
