"""One side's report: every fact gets through, and a fence is believed only while it is seen to hold."""

from __future__ import annotations

from pathlib import Path

from farshore_agent.engines import Seen
from farshore_agent.records import FileKeeper
from farshore_agent.report import Work, assemble, is_violated
from farshore_schema.errors import ErrorBody
from farshore_schema.observed import Finding, SeedProgress, SideReport, StreamMeasurements
from farshore_schema.roles import Facts, Receipt, Record

RECEIPT = Receipt("a", 6, "p")
PEERS = Receipt("b", 4, "q")
RECORD = Record(
    token=3,
    epoch=8,
    fenced_epoch=6,
    promoted_epoch=2,
    stream_epoch=8,
    base="complete",
    receipt=RECEIPT,
    intents=("one",),
    enrolled=True,
    seeded_for="op-1",
)
SEEN = Seen(
    db="up",
    server="uuid",
    server_version="9.7.4",
    fence_holds=True,
    receiving=True,
    applying=True,
    position="p",
    zero=True,
    durability="relaxed",
    peer_ready=True,
    stream=StreamMeasurements(lag_seconds=0.1),
    findings=(Finding(code="x", severity="note", message="y"),),
    stopped="diverged",
    stopped_error=ErrorBody(code="diverged", message="z"),
)
WORK = Work(
    seeding=True,
    seed=SeedProgress(phase="tables"),
    draining=PEERS,
    drained=PEERS._replace(epoch=2),
    prepared_epoch=8,
    proved_for="op-2",
)


def test_every_fact_and_measurement_gets_through(tmp_path: Path) -> None:
    """A field added to the report, the facts or the record and forgotten here fails this test."""
    report = assemble(RECORD, SEEN, WORK)
    writable = assemble(RECORD, Seen(db="up", writable=True), WORK)
    for name, field in SideReport.model_fields.items():
        shown = writable if name == "writable" else report
        assert getattr(shown, name) != field.get_default(call_default_factory=True), name
    assert Facts(**{name: getattr(report, name) for name in Facts._fields}) == report.facts()
    for name, default in Record._field_defaults.items():
        assert getattr(RECORD, name) != default, name
    FileKeeper(tmp_path, "orders", "a").save(RECORD)
    assert FileKeeper(tmp_path, "orders", "a").load() == RECORD


def test_a_receipt_is_shown_only_while_its_fence_is_seen_to_hold() -> None:
    """Unknown is not good: database down, writable, fence not durable, opened since, another epoch."""
    assert assemble(RECORD, SEEN, Work()).receipt == RECEIPT
    for record, seen in (
        (RECORD, Seen(db="down")),
        (RECORD, Seen(db="up", writable=True)),
        (RECORD, Seen(db="up", writable=True, fence_holds=True)),
        (RECORD, Seen(db="up", fence_holds=False)),
        (RECORD._replace(promoted_epoch=8), SEEN),
        (RECORD._replace(fenced_epoch=8), SEEN),
        (RECORD._replace(enrolled=False), SEEN),
    ):
        assert assemble(record, seen, Work()).receipt is None


def test_a_fence_is_broken_only_where_one_was_promised() -> None:
    """A side that never gave a receipt, or was opened since, is not fenced by the watch."""
    found = Finding(code="fence_violated", severity="error", message="m")
    writable = Seen(db="up", writable=True)
    assert is_violated(RECORD, writable, Work())
    assert is_violated(RECORD._replace(receipt=None), writable, Work(violation=found))  # broken again
    assert not is_violated(RECORD._replace(receipt=None), writable, Work())  # noted, its effect still to come
    assert not is_violated(RECORD, SEEN, Work())
    assert not is_violated(RECORD._replace(promoted_epoch=8), writable, Work())
    assert not is_violated(RECORD, Seen(db="down"), Work())
    assert found in assemble(RECORD, SEEN, Work(violation=found)).findings
