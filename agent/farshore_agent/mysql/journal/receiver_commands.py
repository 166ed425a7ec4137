"""The receiver's commands on its control socket: JSON in, JSON out. This module must not know how they are done."""

from __future__ import annotations

from dataclasses import asdict

from farshore_agent.mysql.journal.control import Answer, Command
from farshore_agent.mysql.journal.gtid import GtidSet
from farshore_agent.mysql.journal.housekeeping import Housekeeping
from farshore_agent.mysql.journal.receiver import Receiver


def receiver_commands(receiver: Receiver, housekeeping: Housekeeping) -> dict[str, Command]:
    def wait_contains(request: Answer) -> Answer:
        contained = receiver.wait_contains(GtidSet.parse(request["gtid_set"]), float(request["timeout_seconds"]))
        return {"contained": contained, "end": str(receiver.end())}

    def attach(_: Answer) -> Answer:
        receiver.attach()
        return {}

    def refresh_start(_: Answer) -> Answer:
        return {"start": str(receiver.refresh_start())}

    def set_retention_mark(request: Answer) -> Answer:
        housekeeping.set_mark(GtidSet.parse(request["gtid_set"]), request.get("segment"))
        return {}

    def purge(request: Answer) -> Answer:
        removal = housekeeping.purge(drop_uncovered=bool(request.get("drop_uncovered")))
        files = [{"segment": file.segment, "file": file.name, "bytes": file.bytes} for file in removal.files]
        return {"removed": files, "uncovered": str(removal.uncovered)}

    return {
        "state": lambda _: receiver.state().encode(),
        "end": lambda _: {"end": str(receiver.end())},
        "wait_end": wait_contains,
        "detach": lambda _: {"end": str(receiver.detach())},
        "attach": attach,
        "seal": lambda _: asdict(receiver.seal()),
        "refresh_start": refresh_start,
        "set_retention_mark": set_retention_mark,
        "purge": purge,
    }
