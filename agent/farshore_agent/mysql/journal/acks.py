"""What a source wants to hear about durable transactions: the seam between asynchronous and semi-synchronous streams.

The order is fixed in `Ingest.commit`: sync, publish, then `durable` (I2). Only the asynchronous policy is offered by
this version's settings. This module must not know files or sockets.
"""

from __future__ import annotations

from typing import Protocol


class AckPolicy(Protocol):
    """How packets of the stream look, and what happens once a position is durable."""

    @property
    def header_bytes(self) -> int:
        """Bytes between a packet's status byte and the event: 0, or 2 under semi-sync (magic and flag). Decided by the
        mode of the dial, never by looking: the first byte of an event may be anything."""

    def durable(self, file: str, position: int) -> None:
        """`position` of `file`, where the source asked for an acknowledgement, was synced and published."""


class NoAcks:
    """Asynchronous replication: the source asks for nothing."""

    header_bytes = 0

    def durable(self, file: str, position: int) -> None:
        """Nothing to say."""
