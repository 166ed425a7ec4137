"""The engine contract as tests: one suite for the fake and for every real engine.

A subclass gives the `bench` fixture: two servers, side "a" open for clients with the rows of `FIRST_ROWS`, side "b"
empty. The suite decides nothing by time: `settle` waits (bounded) until the standby has everything.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

import pytest

from farshore_agent.engines import Engine, SeedCall
from farshore_schema.errors import FarshoreError, Transient
from farshore_schema.observed import SeedProgress
from farshore_schema.roles import SIDES, Consent, Receipt, Side

FIRST_ROWS = ("first-1", "first-2", "first-3")


class Bench(Protocol):
    """Two servers under test and the hands to disturb them."""

    def engine(self, side: Side) -> Engine:
        """Return a new engine of a side, as after a restart of its agent."""
        ...

    def write(self, side: Side, row: str) -> bool:
        """Write one row as a client; True with its OK, False when the server refused it or is down."""
        ...

    def rows(self, side: Side) -> set[str]:
        """Return the rows that are there, read past every fence."""
        ...

    def settle(self, side: Side) -> None:
        """Wait until the side applied everything that the other one committed; fail after a bound."""
        ...

    def kill(self, side: Side) -> None:
        """End the server as kill -9 does."""
        ...

    def restart(self, side: Side) -> None:
        """Start the killed server again and wait until it answers."""
        ...

    def break_applier(self, side: Side) -> None:
        """Make what is received from now on impossible to apply."""
        ...

    def await_backlog(self, side: Side) -> None:
        """Wait until something was received at the side that is not applied; fail after a bound."""
        ...

    def put_data(self, side: Side) -> None:
        """Put data onto an empty side that nobody consented to overwrite: the row "own-data"."""
        ...

    def server(self, side: Side) -> str:
        """Return the server's identity, as a consent names it."""
        ...

    def replace(self, side: Side, *, emptied: bool = False) -> None:
        """Let another server answer at the side's endpoint: with the same data and history, or with no history."""
        ...


class Seeded:
    """A seed's two ways back, recorded."""

    def __init__(self) -> None:
        self.first_writes = 0
        self.progress: list[SeedProgress] = []

    def call(
        self, epoch: int, *, consent: Consent | None = None, cancelled: Callable[[], bool] = lambda: False
    ) -> SeedCall:
        def first_write() -> None:
            self.first_writes += 1

        return SeedCall(
            epoch=epoch,
            consent=consent,
            before_first_write=first_write,
            progress=self.progress.append,
            cancelled=cancelled,
        )


def nothing_newer() -> None:
    """The order still holds."""


def never() -> bool:
    """Not cancelled."""
    return False


def consent_for(bench: Bench, side: Side, epoch: int) -> Consent:
    return Consent(side=side, server=bench.server(side), epoch=epoch, by="test")


def protect(bench: Bench) -> None:
    """Side a active in epoch 2, side b seeded and following."""
    bench.engine("a").promote(2, "initial", None, nothing_newer)
    bench.engine("b").seed(Seeded().call(2, consent=consent_for(bench, "b", 2)))
    bench.settle("b")


def fence(bench: Bench, side: Side, epoch: int) -> Receipt:
    return Receipt(side, epoch, bench.engine(side).fence(epoch))


def switch_to_b(bench: Bench, epoch: int = 4) -> Receipt:
    """The planned switchover a → b, as orders come."""
    if bench.engine("a").capabilities.prepare:
        bench.engine("a").prepare(epoch)
    receipt = fence(bench, "a", epoch)
    bench.engine("b").drain(receipt, never)
    bench.engine("b").promote(epoch, "fenced", receipt, nothing_newer)
    return receipt


class EngineSuite:
    """What every engine promises."""

    FIRST_ROWS: ClassVar[tuple[str, ...]] = FIRST_ROWS

    def test_a_seed_copies_everything_and_then_follows(self, bench: Bench) -> None:
        """After a seed the standby has every row, refuses clients, and what is written later arrives by itself."""
        engine, seeded = bench.engine("b"), Seeded()
        bench.engine("a").promote(2, "initial", None, nothing_newer)
        engine.seed(seeded.call(2, consent=consent_for(bench, "b", 2)))
        assert seeded.first_writes == 1
        assert seeded.progress
        assert bench.write("a", "later")
        bench.settle("b")
        assert bench.rows("b") == {*FIRST_ROWS, "later"}
        assert not bench.write("b", "on-the-standby")
        seen = engine.observe()
        assert (seen.db, seen.writable, seen.receiving, seen.applying, seen.stopped) == ("up", False, True, True, "")
        assert seen.server == bench.server("b") != bench.engine("a").observe().server
        assert bench.engine("a").observe().writable

    def test_a_seed_onto_data_needs_a_consent_that_names_this_server_and_epoch(self, bench: Bench) -> None:
        """Nothing that holds data is overwritten without consent; with the right one it is (I5, R9)."""
        bench.put_data("b")
        bench.engine("a").promote(2, "initial", None, nothing_newer)
        right = consent_for(bench, "b", 2)
        for wrong in (None, right._replace(server="another"), right._replace(epoch=1), right._replace(side="a")):
            seeded = Seeded()
            with pytest.raises(FarshoreError) as refused:
                bench.engine("b").seed(seeded.call(2, consent=wrong))
            assert refused.value.code in ("target_has_data", "wrong_direction")
            assert seeded.first_writes == 0
            assert "own-data" in bench.rows("b")
        bench.engine("b").seed(Seeded().call(2, consent=right))
        bench.settle("b")
        assert bench.rows("b") == set(FIRST_ROWS)

    def test_a_cancelled_seed_can_be_started_again(self, bench: Bench) -> None:
        """A seed stopped in its middle raises, and the next one ends as if there had been none before."""
        bench.engine("a").promote(2, "initial", None, nothing_newer)
        consent = consent_for(bench, "b", 2)
        with pytest.raises(FarshoreError):
            bench.engine("b").seed(Seeded().call(2, consent=consent, cancelled=lambda: True))
        assert not bench.write("b", "into-the-half-copy")
        bench.engine("b").seed(Seeded().call(2, consent=consent))
        bench.settle("b")
        assert bench.rows("b") == set(FIRST_ROWS)

    def test_every_move_may_be_repeated(self, bench: Bench) -> None:
        """A second call of any method changes nothing and does not raise."""
        protect(bench)
        bench.engine("b").stream(2)
        bench.engine("b").stream(2)
        if bench.engine("a").capabilities.prepare:
            bench.engine("a").prepare(4)
            bench.engine("a").prepare(4)
        receipt = fence(bench, "a", 4)
        assert fence(bench, "a", 4) == receipt
        for _ in range(2):
            bench.engine("b").drain(receipt, never)
        for _ in range(2):
            bench.engine("b").promote(4, "fenced", receipt, nothing_newer)
        for _ in range(2):
            bench.engine("a").stream(4)
        assert bench.write("b", "after")
        bench.settle("a")
        assert bench.rows("a") == bench.rows("b") == {*FIRST_ROWS, "after"}
        for side in SIDES:
            bench.engine(side).stop_acks(6)
            bench.engine(side).stop_acks(6)
            bench.engine(side).cleanup()
            bench.engine(side).cleanup()

    def test_a_fence_and_a_standby_outlast_a_restart_with_every_agent_dead(self, bench: Bench) -> None:
        """Writes on the fenced side and on the standby fail after both servers restarted (R13)."""
        protect(bench)
        receipt = fence(bench, "a", 4)
        assert not bench.write("a", "after-the-fence")
        assert bench.engine("a").observe().fence_holds
        for side in SIDES:
            bench.kill(side)
        for side in SIDES:
            bench.restart(side)
            assert not bench.write(side, "after-the-restart")
            assert not bench.engine(side).observe().writable
        assert bench.engine("a").observe().fence_holds
        assert fence(bench, "a", 4) == receipt

    def test_a_switchover_loses_nothing_and_the_way_back_works(self, bench: Bench) -> None:
        """Fence, drain, promote, reverse stream; then the same home: every row is on both sides."""
        protect(bench)
        assert bench.write("a", "before")
        switch_to_b(bench)
        assert not bench.write("a", "on-the-old-side")
        assert bench.write("b", "on-b")
        bench.engine("a").stream(4)
        bench.settle("a")
        receipt = fence(bench, "b", 6)
        bench.engine("a").drain(receipt, never)
        bench.engine("a").promote(6, "fenced", receipt, nothing_newer)
        assert bench.write("a", "home-again")
        bench.engine("b").stream(6)
        bench.settle("b")
        assert bench.rows("a") == bench.rows("b") == {*FIRST_ROWS, "before", "on-b", "home-again"}
        assert not bench.write("b", "on-the-standby")

    def test_an_abort_opens_the_fenced_side_again(self, bench: Bench) -> None:
        """After a fence the same side can be promoted in a newer epoch, and its stream to the standby goes on."""
        protect(bench)
        fence(bench, "a", 4)
        bench.engine("a").promote(6, "aborted", None, nothing_newer)
        assert bench.write("a", "after-the-abort")
        bench.engine("b").stream(6)
        bench.settle("b")
        assert "after-the-abort" in bench.rows("b")

    def test_a_drain_that_cannot_end_raises_and_can_be_cancelled(self, bench: Bench) -> None:
        """A drain never returns before the receipt's position is applied, and it lets go when it is told to."""
        protect(bench)
        bench.engine("b").stop_acks(2)
        assert bench.write("a", "never-received")
        receipt = fence(bench, "a", 4)
        with pytest.raises(FarshoreError):
            bench.engine("b").drain(receipt, lambda: True)
        assert "never-received" not in bench.rows("b")
        bench.engine("b").stream(4)
        bench.engine("b").drain(receipt, never)
        assert "never-received" in bench.rows("b")

    def test_promote_refuses_while_something_received_is_not_applied(self, bench: Bench) -> None:
        """Decisions are made on reports: the call checks again and leaves the side closed."""
        protect(bench)
        bench.break_applier("b")
        assert bench.write("a", "cannot-be-applied")
        bench.await_backlog("b")
        with pytest.raises(FarshoreError):
            bench.engine("b").promote(4, "attested", None, nothing_newer)
        assert not bench.write("b", "too-early")
        assert not bench.engine("b").observe().writable

    def test_promote_stops_when_its_order_no_longer_holds(self, bench: Bench) -> None:
        """`still_holds` is asked right before the side opens; when it raises, the side stays closed."""
        protect(bench)
        receipt = fence(bench, "a", 4)
        bench.engine("b").drain(receipt, never)

        def overtaken() -> None:
            raise Transient("stale_epoch_command", "a newer order was admitted")

        with pytest.raises(Transient, match="newer order"):
            bench.engine("b").promote(4, "fenced", receipt, overtaken)
        assert not bench.write("b", "opened-anyway")
        bench.engine("b").promote(4, "fenced", receipt, nothing_newer)
        assert bench.write("b", "opened")

    def test_a_failover_keeps_what_was_received_and_a_returning_side_is_not_rejoined(self, bench: Bench) -> None:
        """A killed active side that comes back with more than the new one is fenced and refused as diverged (R12)."""
        protect(bench)
        assert bench.write("a", "received")
        bench.settle("b")
        bench.engine("b").stop_acks(4)
        assert bench.write("a", "phantom")
        bench.kill("a")
        bench.engine("b").promote(4, "attested", None, nothing_newer)
        assert bench.write("b", "on-b")
        assert "received" in bench.rows("b")
        bench.restart("a")
        fence(bench, "a", 4)
        with pytest.raises(FarshoreError) as refused:
            bench.engine("a").stream(4)
        assert refused.value.code == "diverged"
        assert "phantom" in bench.rows("a")
        assert "phantom" not in bench.rows("b")

    def test_another_server_is_followed_only_when_a_consent_names_it(self, bench: Bench) -> None:
        """A server that took the active one's place is neither recorded nor followed by itself, nor under a consent for
        another one; with the right consent everything goes on from where it was, without a copy (R3)."""
        protect(bench)
        assert bench.write("a", "before")
        bench.settle("b")
        old = bench.server("a")
        bench.replace("a")
        right = consent_for(bench, "a", 4)
        assert right.server != old
        for wrong in (None, right._replace(server=old)):
            with pytest.raises(FarshoreError) as refused:
                bench.engine("a").promote(4, "rebound", None, nothing_newer, wrong)
            assert refused.value.code == "source_replaced"
            with pytest.raises(FarshoreError) as refused:
                bench.engine("b").stream(4, wrong)
            assert refused.value.code == "source_replaced"
        for side in SIDES:
            with pytest.raises(FarshoreError) as refused:
                bench.engine(side).prove(right._replace(server=old))
            assert refused.value.code == "source_replaced"
        for _ in range(2):
            for side in SIDES:
                bench.engine(side).prove(right)
            bench.engine("a").promote(4, "rebound", None, nothing_newer, right)
            fence(bench, "b", 4)
            bench.engine("b").stream(4, right)
        assert bench.write("a", "after")
        bench.settle("b")
        assert bench.rows("b") == bench.rows("a") == {*FIRST_ROWS, "before", "after"}
        bench.engine("a").promote(6, "aborted", None, nothing_newer)  # from here on it is the bound one
        fence(bench, "b", 6)
        bench.engine("b").stream(6)
        assert bench.write("a", "as ever")
        bench.settle("b")

    def test_a_server_that_lacks_what_was_received_is_never_followed(self, bench: Bench) -> None:
        """Nothing is proved and nothing is changed: the standby keeps its data and stays closed (R3)."""
        protect(bench)
        assert bench.write("a", "only-here")
        bench.settle("b")
        bench.replace("a", emptied=True)
        consent = consent_for(bench, "a", 4)
        bench.engine("a").prove(consent)
        moves: list[Callable[[], None]] = [
            lambda: bench.engine("b").prove(consent),
            lambda: bench.engine("b").stream(4, consent),
        ]
        for move in moves:
            with pytest.raises(FarshoreError) as refused:
                move()
            assert refused.value.code == "diverged"
            assert refused.value.body().retry_seconds is None
        assert bench.rows("b") == {*FIRST_ROWS, "only-here"}
        assert not bench.write("b", "on-the-standby")
        assert not bench.engine("b").observe().receiving

    def test_a_rebind_opens_nothing(self, bench: Bench) -> None:
        """A new server that is closed is left so: whoever put it there decides when it is in use."""
        protect(bench)
        fence(bench, "a", 2)
        bench.replace("a")
        consent = consent_for(bench, "a", 4)
        with pytest.raises(Transient):
            bench.engine("a").prove(consent)
        with pytest.raises(Transient):
            bench.engine("a").promote(4, "rebound", None, nothing_newer, consent)
        assert not bench.write("a", "opened-anyway")

    def test_cleanup_ends_the_stream_and_keeps_data_and_switches(self, bench: Bench) -> None:
        """Deleting a pair leaves both databases as they are: the standby read-only, the active side open (R20)."""
        protect(bench)
        for side in ("b", "a"):
            bench.engine(side).cleanup()
        assert bench.write("a", "unprotected")
        assert not bench.write("b", "on-the-old-standby")
        assert bench.rows("b") == set(FIRST_ROWS)
        seen = bench.engine("b").observe()
        assert not seen.receiving
        assert not seen.applying

    def test_a_dead_database_is_seen_and_only_known_errors_come_out(self, bench: Bench) -> None:
        """`observe` never raises; every move raises one of our errors; all of them work again after the restart."""
        protect(bench)
        bench.kill("b")
        engine = bench.engine("b")
        seen = engine.observe()
        assert seen.db == "down"
        assert (seen.writable, seen.fence_holds, seen.receiving) == (False, False, False) or not seen.writable
        receipt = Receipt("a", 4, bench.engine("a").observe().position)
        moves: list[Callable[[], object]] = [
            lambda: engine.seed(Seeded().call(4)),
            lambda: engine.fence(4),
            lambda: engine.drain(receipt, lambda: True),
            lambda: engine.promote(4, "fenced", receipt, nothing_newer),
            lambda: engine.cleanup(),
        ]
        for move in moves:
            with pytest.raises(FarshoreError):
                move()
        bench.restart("b")
        bench.engine("b").stream(2)
        assert bench.write("a", "while-b-was-back")
        bench.settle("b")
        assert bench.engine("b").observe().db == "up"
        assert "while-b-was-back" in bench.rows("b")

    def test_an_engine_says_who_is_there_when_the_other_side_is_dead(self, bench: Bench) -> None:
        """A dead source makes the standby neither wrong nor silent: it is up, read-only, and does not receive."""
        protect(bench)
        bench.kill("a")
        seen = bench.engine("b").observe()
        assert (seen.db, seen.writable) == ("up", False)
        bench.restart("a")
        assert bench.write("a", "again")
        bench.settle("b")
        assert "again" in bench.rows("b")
