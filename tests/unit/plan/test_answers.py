"""What holds for every question one can put to the plan, and the reasons that it answers with."""

from hypothesis import given
from hypothesis import strategies as st

from farshore.plan import REASONS, Policy, explain, plan, progress, why_not
from farshore_schema.errors import TABLE
from farshore_schema.roles import Consent, Facts, Operation, Receipt, Role, Verb, peer
from tests.unit.plan.sides import INITIAL, active, standby, switchover

SIDE = st.sampled_from(["a", "b"])
EPOCH = st.sampled_from([0, 2, 3, 4, 6])
STOPPED = st.sampled_from(["", "", "diverged", "applier_stopped", "a_code_of_the_future"])
RECEIPT = st.none() | st.builds(Receipt, side=SIDE, epoch=EPOCH, position=st.sampled_from(["", "1"]))
CONSENT = st.none() | st.builds(
    Consent, side=SIDE, server=st.sampled_from(["", "server"]), epoch=EPOCH, by=st.just("ann"), overwrite=st.booleans()
)
FACTS = st.none() | st.builds(
    Facts,
    token=st.just(1),
    epoch=EPOCH,
    fenced_epoch=EPOCH,
    promoted_epoch=EPOCH,
    db=st.sampled_from(["up", "up", "down", "unknown"]),
    server=st.sampled_from(["", "server"]),
    writable=st.booleans(),
    receipt=RECEIPT,
    base=st.sampled_from(["none", "incomplete", "complete"]),
    receiving=st.booleans(),
    applying=st.booleans(),
    stream_epoch=EPOCH,
    prepared_epoch=EPOCH,
    drained=RECEIPT,
    seeding=st.booleans(),
    zero=st.booleans(),
    stopped=STOPPED,
    enrolled=st.booleans(),
    draining=RECEIPT,
    seeded_for=st.sampled_from(["", "op"]),
    peer_ready=st.sampled_from([None, True, False]),
)
ROLE = st.none() | st.builds(
    Role,
    active=SIDE,
    epoch=st.sampled_from([2, 3, 4]),
    evidence=st.sampled_from(
        ["initial", "fenced", "receipt", "acks_stopped", "attested", "aborted", "emergency", "rebound"]
    ),
    receipt=RECEIPT,
)
OPERATION = st.none() | st.builds(
    Operation,
    id=st.just("op"),
    verb=st.sampled_from(["protect", "switchover", "failover", "reprotect", "rebind", "remove"]),
    to=SIDE,
    epoch=st.sampled_from([2, 4]),
    consent=CONSENT,
    receipt=RECEIPT,
    attested=st.booleans(),
    prepared=st.booleans(),
    overdue=st.booleans(),
    abort=st.booleans(),
)
POLICY = st.builds(Policy, sync=st.booleans(), preferred=SIDE, reseed_on_gap=st.booleans())
COMMANDS = {"enrol", "seed", "stream", "prepare", "prove", "fence", "drain", "stop_acks", "promote", "cleanup"}


@given(role=ROLE, op=OPERATION, a=FACTS, b=FACTS, policy=POLICY)
def test_every_question_has_an_answer_that_can_be_carried_out(
    role: Role | None, op: Operation | None, a: Facts | None, b: Facts | None, policy: Policy
) -> None:
    """Commands go to a side that answers, with what their step needs; waits have a reason that is in the table."""
    seen = {"a": a, "b": b}
    step = plan(role, op, seen, policy)  # type: ignore[arg-type]
    if step.name in COMMANDS:
        assert step.side is not None
        target = seen[step.side]
        assert target is not None
        assert step.epoch > 0
        if step.name not in ("enrol",):
            assert target.enrolled
            assert target.epoch > 0
    if step.name == "promote":
        assert role is not None
        assert (step.side, step.epoch, step.evidence) == (role.active, role.epoch, role.evidence)
    if step.name == "seed":
        assert role is not None
        assert op is not None
        assert op.consent is not None
        assert step.consent == op.consent._replace(epoch=role.epoch)
        assert step.side == peer(role.active)
        target = seen[step.side]
        assert target is not None
        assert target.server == step.consent.server != ""
    if step.name == "drain":
        assert step.receipt is not None
    if step.name == "decide":
        assert step.role is not None
        assert role is None or step.role.epoch > role.epoch
    if step.name in ("record_fence", "record_prepared", "abort", "finish"):
        assert op is not None
    if step.reason:
        assert step.reason in REASONS


@given(role=ROLE, op=OPERATION, a=FACTS, b=FACTS, policy=POLICY)
def test_every_refusal_is_explained_and_every_operation_has_its_place(
    role: Role | None, op: Operation | None, a: Facts | None, b: Facts | None, policy: Policy
) -> None:
    """`why_not` answers with a reason of the table, `progress` with a step within its count."""
    verbs: tuple[Verb, ...] = ("protect", "switchover", "failover", "reprotect", "rebind", "remove")
    for verb in verbs:
        code = why_not(verb, role, op, {"a": a, "b": b}, policy)
        assert code is None or code in REASONS
    if op is not None:
        k, n, label = progress(op, role, {"a": a, "b": b})
        assert 1 <= k <= n
        assert label


def test_a_switchover_is_allowed_only_when_it_would_be_lossless() -> None:
    """Every doubt refuses, each with its own reason."""

    def asked(a: Facts | None, b: Facts | None, role: Role | None = INITIAL) -> str | None:
        return why_not("switchover", role, None, {"a": a, "b": b}, Policy())

    assert asked(active(), standby()) is None
    assert asked(active(), standby(), role=None) == "not_decided"
    assert why_not("switchover", INITIAL, switchover(), {"a": active(), "b": standby()}, Policy()) == "operation_open"
    assert asked(None, standby()) == "active_unreachable"
    assert asked(active(), None) == "standby_unreachable"
    assert asked(active(db="down"), standby()) == "active_db_down"
    assert asked(active(), standby(db="unknown")) == "standby_db_down"
    assert asked(active(), standby(seeding=True)) == "seeding"
    assert asked(active(), standby(base="incomplete")) == "not_seeded"
    assert asked(active(), standby(stopped="applier_stopped")) == "applier_stopped"
    assert asked(active(), standby(stopped="a_code_of_the_future")) == "standby_stopped"
    assert asked(active(), standby(applying=False)) == "not_following"
    assert asked(active(), standby(fenced_epoch=0)) == "not_fenced"
    assert asked(active(writable=False), standby()) == "not_open"
    assert asked(active(peer_ready=False), standby()) == "peer_not_ready"
    assert asked(active(), standby(peer_ready=None)) == "peer_unknown"
    assert asked(active(), standby(stream_epoch=0, receiving=False), role=Role("a", 2, "attested")) == "failed_over"


def test_emergency_decisions_are_adopted_or_asked_about_and_never_undone() -> None:
    """A claim above the store's epoch is fenced for and adopted; one the store decided against stops everything."""
    claimed = standby(epoch=3, promoted_epoch=3, fenced_epoch=2, writable=True)
    burned = plan(INITIAL, switchover(), {"a": active(), "b": claimed}, Policy())
    assert burned.role == Role("b", 6, "emergency")  # epoch 4 belongs to the operation
    alone = plan(INITIAL, None, {"a": active(), "b": claimed}, Policy())
    assert (alone.name, alone.side, alone.epoch) == ("fence", "a", 3)
    adopted = plan(INITIAL, None, {"a": None, "b": claimed}, Policy())
    assert adopted.role == Role("b", 3, "emergency")
    against = plan(Role("a", 6, "aborted"), None, {"a": active(), "b": claimed}, Policy())
    assert (against.name, against.reason) == ("wait", "two_claims")
    both = {"a": active(epoch=3, promoted_epoch=3), "b": claimed}
    assert plan(INITIAL, None, both, Policy()).reason == "two_claims"  # type: ignore[arg-type]


def test_every_reason_names_the_sites_and_two_ways() -> None:
    """Sentences and commands can be filled in, for the codes of today and of a newer release."""
    for code in (*REASONS, "a_code_of_the_future"):
        reason = explain(code, pair="orders", active="tokyo", standby="osaka")
        assert all(reason)
        assert not any("{" in part for part in reason)


def test_stopped_streams_have_a_reason_for_each_error_of_a_stream() -> None:
    """What an engine reports as the end of a stream is explained under the same code."""
    codes = {"source_replaced", "source_purged", "history_reset", "diverged", "applier_stopped", "corrupt_journal"}
    assert codes | {"disk_full"} <= set(REASONS) & set(TABLE)
