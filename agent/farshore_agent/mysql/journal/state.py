"""What the two processes report of themselves: facts at one moment, as the control socket carries them.

This module must not know how the facts come about.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from farshore_agent.mysql.journal.errors import StopCode, StopReason


class Mode(StrEnum):
    """What the receiver is doing."""

    STARTING = "starting"
    CATCHING_UP = "catching_up"
    FOLLOWING = "following"
    """Attached, asynchronously, and past the point where the source once had nothing more to send."""
    WAITING = "waiting"
    """Not attached; tries again by itself; `stopped` says why."""
    STOPPED = "stopped"
    """Not attached until somebody acts; `stopped` says why."""
    DETACHED = "detached"
    SEALED = "sealed"


@dataclass(frozen=True, kw_only=True)
class ReceiverState:
    """GTID sets are text as @@gtid_executed shows them, in one line."""

    mode: Mode
    connected: bool
    """A dump is running on a live connection."""
    segment: str
    """Empty before the first attach."""
    epoch: int
    sealed: bool
    source_uuid: str
    start_gtid_set: str
    """What a reader of the segment must already have."""
    end_gtid_set: str
    """`start_gtid_set` and every durable whole transaction of the segment."""
    file: str
    position: int
    """Published: durable and at the end of a whole transaction; file and offset are the source's own."""
    bytes: int
    """Received since this process started."""
    transactions: int
    """Received since this process started."""
    disk_bytes: int
    """Of all segments."""
    disk_free_bytes: int
    stopped: StopReason | None
    last_event_age: float | None
    """Seconds since anything came from the source, heartbeats included; None before the first event."""
    last_commit_unix: float
    """The source's commit time of the newest transaction received by this process; 0 before the first."""
    dials: int
    pid: int
    version: int
    """Of the control protocol."""

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, document: dict[str, Any]) -> Self:
        """Read what `encode` made; raises ValueError, KeyError or TypeError on anything else."""
        stopped = document["stopped"]
        reason = StopReason(**{**stopped, "code": StopCode(stopped["code"])}) if stopped else None
        return cls(**{**document, "mode": Mode(document["mode"]), "stopped": reason})


@dataclass(frozen=True, kw_only=True)
class ServedReplica:
    """One replica that is being served."""

    connection: int
    user: str
    address: str
    replica_uuid: str
    server_id: int
    requested: str
    """The GTID set it came with."""
    segment: str
    file: str
    position: int
    """Sent up to here; what it applied is the replica's to tell."""
    since_unix: float


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A place in the journal from which on nothing is served."""

    file: str
    offset: int
    message: str


@dataclass(frozen=True, kw_only=True)
class ServerState:
    host: str
    port: int
    connections: tuple[ServedReplica, ...]
    refused_logins: int
    """Since this process started."""
    damage: Damage | None
    pid: int
    version: int
    """Of the control protocol."""

    def encode(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def decode(cls, document: dict[str, Any]) -> Self:
        damage = document["damage"]
        return cls(
            **{
                **document,
                "connections": tuple(ServedReplica(**item) for item in document["connections"]),
                "damage": Damage(**damage) if damage else None,
            }
        )
