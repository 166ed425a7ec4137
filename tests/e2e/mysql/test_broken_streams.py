"""What a stream cannot survive by itself: it stops with the reason, never with a gap; a seed by consent mends it."""

from __future__ import annotations

import time

import pytest

from farshore_agent.engines import SeedCall
from farshore_schema.errors import FarshoreError
from farshore_schema.roles import Consent
from tests.e2e.mysql.sites import TABLE, Pair, still_holds
from tests.testbed.mysql import MySQLServer

pytestmark = pytest.mark.mysql


def stops(pair: Pair, code: str) -> None:
    """The standby says why it stopped; the source takes writes as ever; no order brings the stream back."""
    seen = pair.seen(pair.standby, lambda seen: seen.stopped == code, f"stopped as {code}")
    assert seen.stopped_error is not None
    assert seen.stopped_error.code == code
    assert seen.stopped_error.hint
    assert not seen.receiving
    assert pair.sites.write(pair.active, f"after-{code}")
    with pytest.raises(FarshoreError) as refused:
        pair.engines[pair.standby].stream(pair.epoch)
    assert refused.value.code == code
    assert f"after-{code}" not in pair.sites.rows(pair.standby)


def seed_again(pair: Pair) -> None:
    """A new seed in the same epoch, as a reprotect orders it, mends it by consent; without one nothing is done."""
    with pytest.raises(FarshoreError) as refused:
        pair.seed(consent=False)
    assert refused.value.code in ("target_has_data", "wrong_direction")
    assert pair.sites.rows(pair.standby)
    told = pair.seed(consent=True)
    assert {each.phase for each in told} >= {"starting", "tables", "catching_up"}
    pair.seen(pair.standby, lambda seen: (seen.receiving, seen.applying, seen.stopped) == (True, True, ""), "follows")
    assert pair.sites.write(pair.active, f"after-seed-{time.monotonic()}")
    pair.settled()


def purge_all(server: MySQLServer) -> None:
    server.execute("FLUSH BINARY LOGS")
    newest = server.query("SHOW BINARY LOGS")[-1][0]
    server.execute(f"PURGE BINARY LOGS TO '{newest}'")


def test_a_purge_ahead_of_the_journal_stops_it(pair: Pair) -> None:
    """The gateway was down while the source purged what it had not received: source_purged, and no gap."""
    pair.sites.kill_journal(pair.standby)
    assert pair.sites.write(pair.active, "purged-unread")
    purge_all(pair.sites.servers[pair.active])
    assert pair.sites.write(pair.active, "after-the-purge")
    with pytest.raises(FarshoreError) as refused:
        pair.engines[pair.standby].stream(pair.epoch)
    assert refused.value.code == "source_purged"
    stops(pair, "source_purged")
    assert not {"purged-unread", "after-the-purge"} & pair.sites.rows(pair.standby)
    seed_again(pair)


def test_a_new_history_of_the_source_stops_it(pair: Pair) -> None:
    """RESET BINARY LOGS AND GTIDS at the source: history_reset."""
    pair.sites.servers[pair.active].execute(
        "RESET BINARY LOGS AND GTIDS", f"INSERT INTO {TABLE} VALUES ('new-history')"
    )
    stops(pair, "history_reset")
    seed_again(pair)


def test_another_server_behind_the_endpoint_stops_it(pair: Pair) -> None:
    """The source's server_uuid changed: source_replaced, even with the same data and history (R3)."""
    source = pair.sites.servers[pair.active]
    source.kill()
    (source.datadir / "auto.cnf").unlink()
    source.start()
    stops(pair, "source_replaced")
    with pytest.raises(FarshoreError) as other_epoch:
        pair.engines[pair.standby].stream(pair.epoch + 2)
    assert other_epoch.value.code == "source_replaced"
    pair.restart_agent(pair.active)
    with pytest.raises(FarshoreError) as refused:
        pair.engines[pair.active].fence(pair.epoch + 2)
    assert refused.value.code == "source_replaced"
    assert pair.sites.write(pair.active, "still-open")


def test_a_returning_side_with_more_is_not_rejoined_and_is_seeded_by_consent(pair: Pair) -> None:
    """After a failover the old side holds a phantom: diverged, with both histories; consent overwrites it (R9, R12)."""
    for side in ("a", "b"):
        pair.engines[side].cleanup()
    pair.epoch += 2
    pair.engines[pair.active].promote(pair.epoch, "initial", None, still_holds)
    pair.seed(consent=True)
    old = pair.active
    pair.engines[pair.standby].stop_acks(pair.epoch)
    assert pair.sites.write(old, "phantom")
    pair.sites.kill(old)
    pair.epoch += 2
    pair.engines[pair.standby].promote(pair.epoch, "attested", None, still_holds)
    pair.active = pair.standby
    assert pair.sites.write(pair.active, "on-the-new-side")
    pair.sites.restart(old)
    pair.engines[old].fence(pair.epoch)
    with pytest.raises(FarshoreError) as refused:
        pair.engines[old].stream(pair.epoch)
    assert refused.value.code == "diverged"
    assert refused.value.current is not None
    assert set(refused.value.current) == {"only_here", "here", "there"}
    assert "phantom" in pair.sites.rows(old)
    seed_again(pair)
    assert "phantom" not in pair.sites.rows(old)


def test_a_side_that_says_it_is_active_in_this_epoch_is_never_overwritten(pair: Pair) -> None:
    """A role marker of the same or a newer epoch refuses a seed, whoever consented (R8)."""
    active = pair.active
    engine = pair.engines[active]
    called = []
    with pytest.raises(FarshoreError) as refused:
        engine.seed(
            SeedCall(
                epoch=pair.epoch - 2,
                consent=Consent(active, pair.sites.server(active), pair.epoch - 2, "test"),
                before_first_write=lambda: called.append(1),
                progress=lambda _: None,
                cancelled=lambda: False,
            )
        )
    assert refused.value.code == "wrong_direction"
    assert called == []
    assert pair.sites.write(active, "still-the-active-one")
