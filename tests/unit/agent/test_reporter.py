"""What is due to be said in a session, by given times alone."""

from __future__ import annotations

from farshore_agent.observe import Key
from farshore_agent.reporter import UNASSIGNED_SECONDS, Reporter
from farshore_schema.messages import MEASURED_SECONDS, MEASURES_MAX, Alive, Measured, Report
from farshore_schema.observed import SeedProgress, SideReport, StreamMeasurements

A: Key = ("orders", "a")
UP = SideReport(db="up", epoch=2)


def reporter() -> Reporter:
    made = Reporter()
    made.begin(0.0)
    return made


def flush(made: Reporter) -> list[Report]:
    return made.urgent(100)


def test_a_changed_fact_is_due_at_once_and_only_once() -> None:
    """Equal facts are never due again; every changed one is; an assignment makes the same facts due once more."""
    made = reporter()
    made.assigned(A)
    assert made.seen(A, 1, UP)
    assert [each.report for each in flush(made)] == [UP]
    assert not made.seen(A, 1, UP)
    assert not made.seen(A, 1, UP.model_copy(update={"position": "p"}))
    assert made.seen(A, 1, UP.model_copy(update={"writable": True}))
    assert len(flush(made)) == 1
    made.assigned(A)
    assert [each.report.writable for each in flush(made)] == [True]
    assert made.urgent(100) == []


def test_an_assignment_before_the_first_look_is_answered_by_the_first_look() -> None:
    """Nothing is said of a side before something is known of it."""
    made = reporter()
    made.assigned(A)
    assert flush(made) == []
    assert made.seen(A, 1, UP)


def test_a_changed_incarnation_is_due() -> None:
    """The same facts under a new incarnation are reported under it."""
    made = reporter()
    made.assigned(A)
    made.seen(A, 1, UP)
    flush(made)
    assert made.seen(A, 2, UP)
    assert [each.incarnation for each in flush(made)] == [2]


def test_measurements_travel_together_rarely_and_only_when_new() -> None:
    """At most once in MEASURED_SECONDS and side; once a second while seeding; many sides in few messages."""
    made = reporter()
    keys: list[Key] = [(f"pair-{number}", "a") for number in range(MEASURES_MAX + 1)]
    for key in keys:
        made.assigned(key)
        made.seen(key, 1, UP)
    assert len(made.urgent(10_000)) == len(keys)
    measured = UP.model_copy(update={"stream": StreamMeasurements(lag_seconds=0.1)})
    for key in keys:
        made.seen(key, 1, measured)
    first = made.tick(100.0, ())
    assert [type(each) for each in first] == [Measured, Measured, Alive]
    assert sum(len(each.measures) for each in first if isinstance(each, Measured)) == len(keys)
    again = UP.model_copy(update={"stream": StreamMeasurements(lag_seconds=0.2)})
    made.seen(keys[0], 1, again)
    assert [type(each) for each in made.tick(101.0, ())] == [Alive]
    assert [type(each) for each in made.tick(100.0 + MEASURED_SECONDS, ())] == [Measured, Alive]
    assert [type(each) for each in made.tick(120.0, ())] == [Alive]
    seeding = UP.model_copy(update={"seeding": True, "seed": SeedProgress(phase="tables", rows_done=1)})
    made.seen(keys[0], 1, seeding)
    flush(made)
    for second in range(3):
        made.seen(keys[0], 1, seeding.model_copy(update={"seed": SeedProgress(phase="tables", rows_done=second + 2)}))
        assert [type(each) for each in made.tick(130.0 + second, ())] == [Measured, Alive]


def test_a_report_carries_the_newest_measurements_and_they_are_not_said_again() -> None:
    """Numbers that went out with a report are not sent as measurements too."""
    made = reporter()
    made.assigned(A)
    made.seen(A, 1, UP.model_copy(update={"position": "p"}))
    assert flush(made)[0].report.position == "p"
    assert [type(each) for each in made.tick(100.0, ())] == [Alive]


def test_numbers_grow_by_one_over_all_kinds_and_begin_anew_with_a_session() -> None:
    """Reports, measurements and signs of life share one sequence within a session."""
    made = reporter()
    made.assigned(A)
    made.seen(A, 1, UP)
    said = [*flush(made), *made.tick(1.0, ((A),)), *made.tick(2.0, ())]
    assert [each.sequence for each in said] == [1, 2, 3]
    assert [each.unheld for each in said if isinstance(each, Alive)] == [(A,), ()]
    made.begin(10.0)
    assert flush(made) == []
    made.assigned(A)
    assert [each.sequence for each in flush(made)] == [1]


def test_a_leftover_is_reported_once_after_a_while() -> None:
    """A side that this session never assigned is reported late, so that it can be told to let go."""
    made = reporter()
    made.seen(A, 1, UP)
    assert [type(each) for each in made.tick(UNASSIGNED_SECONDS - 0.1, ())] == [Alive]
    assert [type(each) for each in made.tick(UNASSIGNED_SECONDS, ())] == [Report, Alive]
    assert [type(each) for each in made.tick(UNASSIGNED_SECONDS + 1, ())] == [Alive]
    made.released(A)
    made.begin(100.0)
    assert [type(each) for each in made.tick(200.0, ())] == [Alive]


def test_signs_of_life_are_due_every_second() -> None:
    """The first at once, each further one a second after the last."""
    made = reporter()
    assert made.alive_in(0.0) == 0
    made.tick(0.0, ())
    assert made.alive_in(0.25) == 0.75
    assert made.alive_in(7.0) == 0
