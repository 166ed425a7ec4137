"""The link between a journal and its source, and the disk below the journal: lost, too old, another history, full.

The source is never the one to suffer, no gap is ever stepped over, and a new copy needs a consent (R9, I8).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.conftest import require_installed
from tests.e2e.switchover.gate import Gate
from tests.e2e.switchover.parts import PAIR
from tests.e2e.switchover.rig import SIDE, Rig
from tests.testbed.haproxy import haproxy_program
from tests.testbed.load import DATABASE
from tests.testbed.mysql_install import MySQLInstallation
from tests.testbed.require import require_root
from tests.testbed.waiting import wait_until

pytestmark = [pytest.mark.mysql, pytest.mark.haproxy, pytest.mark.timeout(240)]

DISK_BYTES: Final = 96 << 20
"""Room for the journals of this module's writes, and little enough to be filled in a moment."""
WRITES: Final = 300


class Linked(Rig):
    """A rig whose tokyo is reached through a gate; as root, osaka's journal has a small disk of its own."""

    gate: Gate
    disk: Path | None = None


@pytest.fixture(scope="module")
def linked(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Linked]:
    """A protected pair from tokyo to osaka, with the gate open and space on the disk."""
    require_installed(haproxy_program)
    made = Linked(tmp_path_factory.mktemp("linked"))
    with contextlib.ExitStack() as stack:
        if os.geteuid() == 0:
            stack.callback(lambda: unmount(made))  # after everything that uses it has ended
        stack.enter_context(made.stage)
        made.begin()
        made.gate = stack.enter_context(Gate(made.server("tokyo").port))
        if os.geteuid() == 0:
            mount(made)
        declared = made.stage.declaration()
        declared["site_a"]["port"] = made.gate.port
        for site in made.sites:
            made.farshore.declare_site(site)
        made.farshore.declare(declared)
        made.protected()
        made.route()
        yield made


def mount(rig: Linked) -> None:
    """Give osaka's journal a small disk of its own."""
    folder = rig.parts.journal(SIDE["osaka"]).parent
    folder.mkdir(mode=0o700, parents=True)
    rig.disk = folder
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES},mode=700", "tmpfs", str(folder)], check=True)


def unmount(rig: Linked) -> None:
    """Take the disk away."""
    if rig.disk is not None:
        subprocess.run(["umount", "--lazy", str(rig.disk)], check=True)


@pytest.fixture
def rig(linked: Linked) -> Linked:
    """The same, whole."""
    linked.gate.reopen()
    linked.heal()
    linked.protected()
    return linked


def stream(rig: Rig) -> dict[str, Any]:
    """Return what is reported of the stream."""
    found: dict[str, Any] = rig.status()["replication"]
    return found


def cut(rig: Linked) -> None:
    """Cut the journal off from its source, and wait until that shows."""
    rig.gate.close_to(lambda: rig.parts.receiver(SIDE["osaka"]))
    rig.eventually(lambda: rig.status()["phase"] != "protected", "the pair does not look protected")


def applied(rig: Rig, position: str) -> bool:
    """Return whether osaka has applied everything up to a position."""
    return bool(rig.server("osaka").scalar("SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)", (position,)))


def test_a_lost_link_costs_the_source_nothing_and_is_caught_up(rig: Linked) -> None:
    """The journal is cut off: clients notice nothing, the pair does not claim to be protected, the lag is told.

    A switchover is refused meanwhile. When the link is back, everything arrives.
    """
    with rig.clients() as clients:
        cut(rig)
        before = rig.server("osaka").gtid_executed()
        written = rig.server("tokyo").gtid_executed()
        more = len(clients.load.records()) + WRITES
        wait_until(lambda: len(clients.load.records()) > more, "clients go on writing", poll_seconds=0.1)
        assert rig.server("osaka").gtid_executed() == before
        status = rig.status()
        assert status["replication"]["rpo_class"] == "none"
        assert status["replication"]["lag_seconds"] > 0
        refused = rig.farshore.api("POST", f"/v1/pairs/{PAIR}/operations", json={"verb": "switchover"})
        assert refused.status_code == 409, refused.text
        rig.gate.reopen()
        rig.eventually(lambda: applied(rig, written), "what was missed arrives")
        rig.protected()
        records = clients.judge(decided=0)
        assert [each for each in records if each.outcome != "ok"] == []


def test_what_the_source_purged_before_it_was_received_stops_the_stream_and_asks(rig: Linked) -> None:
    """The source purges its logs ahead of a journal that is cut off: the stream stops and says so, with no gap.

    Nothing is copied anew before somebody consents; then the pair is protected again.
    """
    tokyo, osaka = rig.server("tokyo"), rig.server("osaka")
    cut(rig)
    held = osaka.gtid_executed()
    tokyo.execute(f"INSERT INTO {DATABASE}.appended (id, filler) VALUES (-900001, 'purged')", "FLUSH BINARY LOGS")
    newest = str(tokyo.query("SHOW BINARY LOG STATUS")[0][0])
    tokyo.execute(f"PURGE BINARY LOGS TO '{newest}'")
    rig.gate.reopen()
    stopped(rig, "source_purged")
    tokyo.execute(f"INSERT INTO {DATABASE}.appended (id, filler) VALUES (-900002, 'after the gap')")
    still(rig, "source_purged", held)
    copied_by_consent(rig)


def test_a_new_history_at_the_source_stops_the_stream_and_asks(rig: Linked) -> None:
    """RESET BINARY LOGS AND GTIDS at the source: the stream stops, nothing of the new history is mixed with the old."""
    held = rig.server("osaka").gtid_executed()
    rig.server("tokyo").execute(
        "RESET BINARY LOGS AND GTIDS",
        f"INSERT INTO {DATABASE}.appended (id, filler) VALUES (-900003, 'another history')",
    )
    stopped(rig, "history_reset")
    still(rig, "history_reset", held)
    copied_by_consent(rig)


def stopped(rig: Rig, code: str) -> None:
    """Wait until the pair says that its stream stopped for this reason, and what to do."""
    rig.eventually(lambda: bool((stream(rig)["stopped"] or {}).get("code") == code), f"it stops: {code}")
    status = rig.status()
    assert status["phase"] == "stopped"
    assert status["replication"]["stopped"]["message"]
    assert status["replication"]["stopped"]["hint"]
    allowed = {each["verb"]: each for each in status["allowed_operations"]}
    assert not allowed["switchover"]["allowed"]
    assert allowed["switchover"]["why_not"].startswith(f"{code}: ")
    assert allowed["reprotect"]["allowed"], allowed


def still(rig: Rig, code: str, held: str) -> None:
    """Require that nothing is done about it, over a restart: nothing is copied anew and nothing is stepped over."""
    known = rig.operations()
    rig.farshore.kill()
    rig.farshore.start()
    rig.eventually(lambda: stream(rig)["measured_age_seconds"] is not None, "the gateways are heard again")
    rig.eventually(lambda: bool((stream(rig)["stopped"] or {}).get("code") == code), f"it is still stopped: {code}")
    assert rig.operations() == known
    assert rig.server("osaka").gtid_executed() == held
    assert rig.server("osaka").scalar("SELECT @@GLOBAL.super_read_only") == 1


def copied_by_consent(rig: Rig) -> None:
    """Consent as the hint says; the pair is protected again, with both sides equal."""
    done = rig.farshore.cli("reprotect", PAIR, "--yes")
    assert done.returncode == 0, done
    rig.protected()
    rig.compare()
    with rig.clients() as clients:
        clients.judge(decided=0)


def test_a_full_disk_below_the_journal_stops_the_stream_and_not_the_source(rig: Linked) -> None:
    """The journal's disk is full: the pair says so, clients notice nothing; with space again it goes on by itself."""
    require_root()
    assert rig.disk is not None
    with rig.clients() as clients:
        filler = rig.disk / "filler"
        fill(filler)
        stopped_by_disk = ["disk_full"]
        rig.eventually(lambda: (stream(rig)["stopped"] or {}).get("code") in stopped_by_disk, "it says disk_full")
        assert rig.status()["phase"] == "stopped"
        more = len(clients.load.records()) + WRITES
        wait_until(lambda: len(clients.load.records()) > more, "clients go on writing", poll_seconds=0.1)
        written = rig.server("tokyo").gtid_executed()
        assert not applied(rig, written)
        filler.unlink()
        rig.eventually(lambda: applied(rig, written), "what was missed arrives")
        rig.protected()
        records = clients.judge(decided=0)
        assert [each for each in records if each.outcome != "ok"] == []


def fill(path: Path) -> None:
    """Write a file until its disk is full."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        piece = b"\0" * (1 << 16)
        with contextlib.suppress(OSError):
            for _ in range(2 * DISK_BYTES // len(piece)):
                os.write(handle, piece)
        with contextlib.suppress(OSError):
            for _ in range(len(piece)):
                os.write(handle, b"\0")
    finally:
        os.close(handle)
