"""`make demo`: the main job on real servers, with live clients; ends with DEMO OK, or says why not.

It is a play for people: every line says what happens, every number was measured in this run.
"""

from __future__ import annotations

import re
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.demo.stage import APPLICATION, Site, Stage
from tests.testbed.haproxy import HAProxy
from tests.testbed.load import Load, LoadSize, outage, prepare, verify
from tests.testbed.mysql import MySQLServer
from tests.testbed.mysql_content import table_checksums
from tests.testbed.pulumi import Outcome
from tests.testbed.waiting import wait_until

DIRECTORY = Path(__file__).resolve().parents[2] / ".demo"
DATABASE = "farshore_load"
SEED_ROWS = 120_000
BIG_BYTES = 200 * 1024 * 1024
RATE = 500.0
CLIENTS = 8
CATCH_UP_SECONDS = 180
BESIDE_SECONDS = 3.0

console = Console(highlight=False)


class DemoFailed(Exception):
    """Something is not as the demo promises."""


@dataclass
class Measured:
    """One line of the table at the end."""

    what: str
    value: str
    how: str


class Demo:
    """The acts, in order. Each raises when its promise does not hold."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.measured: list[Measured] = []
        self.outages: list[float] = []
        self.lost = 0
        self.acknowledged = 0

    def play(self) -> None:
        """Play every act."""
        self.servers()
        self.serve()
        self.protect()
        self.proxy = self.stage.haproxy()
        say(f"HAProxy follows the role probes on 127.0.0.1:{self.proxy.port}")
        wait_until(lambda: self.proxy.up().get("tokyo"), "HAProxy sees tokyo as the active side")
        self.turmoil()
        self.move("osaka", "the planned switchover")
        self.move("tokyo", "back again, the failback")
        self.quiet()
        self.destroy()

    # ---- act 1 and 2

    def servers(self) -> None:
        act("Two real MySQL servers")
        tokyo, osaka = self.stage.servers()
        version = tokyo.server.scalar("SELECT VERSION()")
        prepare(tokyo.server, user=APPLICATION[0], password=APPLICATION[1])
        fill(tokyo.server)
        say(
            f"MySQL {version}: tokyo on port {tokyo.server.port} with {SEED_ROWS:,} rows; "
            f"osaka on port {osaka.server.port}, empty"
        )

    def serve(self) -> None:
        act("farshore serve, on an empty directory")
        farshore = self.stage.reconciler()
        say(f"API on {farshore.url}; SQLite store; embedded agent for both sites")

    def protect(self) -> None:
        act("pulumi up: two sites and one pair")
        self.stack = self.stage.stack()
        began = time.monotonic()
        run(self.stack.up())
        up_seconds = time.monotonic() - began
        self.note("first pulumi up", f"{up_seconds:.1f} s", "returns on acceptance")
        began = time.monotonic()
        self.watch_until_protected()
        self.note("seed to protected", f"{time.monotonic() - began:.1f} s", f"{SEED_ROWS:,} rows")
        lag = self.stage.farshore.status("orders")["replication"]["lag_seconds"]
        say(f"protected; measured lag {'unknown' if lag is None else f'{lag * 1000:.0f} ms'}")

    def watch_until_protected(self) -> None:
        arguments = ("status", "orders", "--watch", "--until", "protected", "--timeout", "300")
        if self.stage.farshore.cli_live(*arguments):
            raise DemoFailed("the pair is not protected after 300 s")

    # ---- act 3

    def turmoil(self) -> None:
        act("Clients write through DDL, a 200 MB transaction, a rotation and a restart of the source")
        tokyo = self.stage.tokyo.server
        size = LoadSize(clients=CLIENTS, rate_per_second=RATE, ddl_seconds=0.5, big_bytes=BIG_BYTES)
        with self.load(self.proxy, size) as load:
            wait_until(
                lambda: any(r.kind == "B" and r.outcome == "ok" for r in load.records()),
                "the big transaction",
                seconds=120,
            )
            say("200 MB transaction is committed")
            tokyo.execute("FLUSH BINARY LOGS")
            say("binary log rotated")
            time.sleep(BESIDE_SECONDS)
            tokyo.restart()
            say("source restarted")
            # Through HAProxy the clients come back as soon as the probe sees tokyo writable again.
            restarted = time.monotonic()
            wait_until(
                lambda: any(r.outcome == "ok" and r.start > restarted for r in load.records()), "clients write again"
            )
            time.sleep(BESIDE_SECONDS)
            records = load.stop()
        compare(self.stage.tokyo, self.stage.osaka)
        verdict = verify(tokyo, records)
        if not verdict.exact:
            raise DemoFailed(f"the source itself does not hold what its clients were told: {verdict}")
        say(f"{verdict.acknowledged:,} transactions acknowledged; both sides hold the same at one GTID set")
        self.note("checksums of both sides at one GTID set", "equal", "after DDL, 200 MB, rotation, restart")

    # ---- act 4

    def move(self, site: str, what: str) -> None:
        act(f"pulumi config set primary_site {site}: {what}")
        new = self.stage.osaka if site == "osaka" else self.stage.tokyo
        self.stack.config_set("primary_site", site)
        preview = run(self.stack.preview())
        planned = next((line.strip() for line in preview.text.splitlines() if "PLANNED SWITCHOVER" in line), "")
        if not planned:
            raise DemoFailed(f"the preview does not say that this is a planned switchover:\n{preview.text}")
        say(f"preview: {planned}")
        with self.load(self.proxy, LoadSize(clients=CLIENTS, rate_per_second=RATE)) as load:
            time.sleep(BESIDE_SECONDS)
            began = time.monotonic()
            run(self.stack.up())
            ended = time.monotonic()
            time.sleep(BESIDE_SECONDS)
            records = load.stop()
        gap = outage(records, since=began - 1, until=ended + BESIDE_SECONDS)
        verdict = verify(new.server, records)
        self.outages.append(gap.seconds)
        self.lost += verdict.lost
        self.acknowledged += verdict.acknowledged
        if not verdict.exact:
            raise DemoFailed(f"{verdict.lost} acknowledged transactions lost: {verdict}")
        say(
            f"{site} is active; write outage seen by the clients {gap.seconds * 1000:.0f} ms; "
            f"{verdict.lost} acknowledged transactions lost"
        )
        self.note(
            f"write outage, to {site}",
            f"{gap.seconds * 1000:.0f} ms",
            "last OK to first OK, all clients, through HAProxy",
        )
        self.stage.farshore.wait_for_phase("orders", "protected")
        compare(self.stage.tokyo, self.stage.osaka)

    # ---- act 5

    def quiet(self) -> None:
        act("A second pulumi up is unchanged, a refresh shows no noise")
        expect("unchanged", run(self.stack.up()))
        run(self.stack.refresh("--expect-no-changes"))
        say("nothing to do, nothing to see")

    def destroy(self) -> None:
        act("pulumi destroy ends protection and keeps both databases")
        run(self.stack.destroy())
        for site in (self.stage.tokyo, self.stage.osaka):
            rows = site.server.scalar(f"SELECT COUNT(*) FROM {DATABASE}.appended")
            if not rows:
                raise DemoFailed(f"{site.name} lost its data")
            say(f"{site.name} still has {rows:,} rows")
        if self.stage.farshore.cli_json("status"):
            raise DemoFailed("the pair is still declared")

    # ---- tools

    def load(self, proxy: HAProxy, size: LoadSize) -> Load:
        """Return a load of clients that connect through HAProxy."""
        user, password = APPLICATION
        return Load(self.stage.directory, host=proxy.host, port=proxy.port, user=user, password=password, size=size)

    def note(self, what: str, value: str, how: str) -> None:
        """Keep a measurement for the table at the end."""
        self.measured.append(Measured(what, value, how))

    def table(self) -> Table:
        """Return what was measured."""
        self.note(
            "acknowledged transactions lost",
            str(self.lost),
            f"of {self.acknowledged:,} while switching, by the clients' records",
        )
        shown = Table(title="Measured in this run", title_justify="left", box=None, header_style="bold")
        for column in ("what", "value", "how"):
            shown.add_column(column)
        for each in self.measured:
            shown.add_row(each.what, each.value, each.how)
        return shown


def fill(server: MySQLServer) -> None:
    """Give the seed something to copy, by an ordinary statement."""
    server.execute(
        f"SET SESSION cte_max_recursion_depth = {SEED_ROWS + 1}",
        f"INSERT INTO {DATABASE}.appended SELECT -n, REPEAT(CHAR(65 + n % 26), 400) FROM "
        f"(WITH RECURSIVE s (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s WHERE n < {SEED_ROWS}) "
        "SELECT n FROM s) AS s",
    )


def compare(one: Site, other: Site) -> None:
    """Compare every table of both sides at one GTID set; the clients are quiet."""

    def at_one_position() -> bool:
        return bool(other.server.gtid_executed() == one.server.gtid_executed())

    wait_until(at_one_position, "both sides are at one GTID set", seconds=CATCH_UP_SECONDS)
    ours, theirs = content(one), content(other)
    different = sorted(table for table in ours.keys() | theirs.keys() if ours.get(table) != theirs.get(table))
    if different:
        raise DemoFailed(f"the two sides differ in {', '.join(different)}")


def content(site: Site) -> dict[str, object]:
    """Return the checksum of every table but Farshore's own notes, which are each server's own."""
    return {table: value for table, value in table_checksums(site.server).items() if not table.startswith("farshore.")}


def run(outcome: Outcome) -> Outcome:
    """Print what Pulumi says in the end; raise when it failed."""
    if outcome.exit_code:
        raise DemoFailed(f"pulumi {' '.join(outcome.command[:1])} failed:\n{outcome.text[-4000:]}")
    counted = re.findall(r"^\s+[~+-]?\s*\d+ \w+.*$", outcome.stdout, re.MULTILINE)
    if counted:
        say(f"pulumi {outcome.command[0]}: " + ", ".join(line.strip() for line in counted))
    return outcome


def expect(word: str, outcome: Outcome) -> None:
    """Demand a word in what Pulumi printed, and that nothing was changed."""
    if word not in outcome.stdout or re.search(r"\d+ (created|updated|deleted|replaced)", outcome.stdout):
        raise DemoFailed(f"pulumi did more than nothing:\n{outcome.text}")


def act(title: str) -> None:
    """Begin an act."""
    console.print(f"\n[bold cyan]== {escape(title)}[/bold cyan]")


def say(line: str) -> None:
    """Say one thing that happened."""
    console.print(f"   {escape(line)}", soft_wrap=True)


def main() -> int:
    """Play; return the exit code."""
    began = time.monotonic()
    try:
        with Stage(DIRECTORY) as stage:
            demo = Demo(stage)
            demo.play()
            table = demo.table()
    except (DemoFailed, AssertionError) as error:
        console.print(f"\n[bold red]DEMO FAILED[/bold red]: {escape(str(error))}", soft_wrap=True)
        console.print(f"logs are kept in {DIRECTORY}")
        return 1
    except Exception:  # noqa: BLE001  # the one net of this program: whatever it is, the demo failed and says why
        traceback.print_exc()
        console.print(f"\n[bold red]DEMO FAILED[/bold red]; logs are kept in {DIRECTORY}")
        return 1
    console.print()
    console.print(table)
    console.print(f"\n[bold green]DEMO OK[/bold green] in {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
