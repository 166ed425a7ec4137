"""The right to act for a pair: the owner key of its shard and the create revision that the key must have.

256 fixed shards, one key each, under one lease. The create revision is the fencing token: every write is guarded by it
and every command carries it, so a process that lost its lease can neither write nor command, however long it slept
(I6). A restart takes new leases and so has higher tokens.
"""

from hashlib import blake2b
from typing import Final, NamedTuple

from farshore.clock import Clock
from farshore.store import Guard, LeaseGone, Store, absent, create_rev, keys
from farshore.store.records import OwnerRecord, put

LEASE_SECONDS: Final = 10.0
KEEPALIVE_SECONDS: Final = 3.0
TRUSTED: Final = 2 / 3  # of the lease: counted from the last keepalive sent, ownership is given up by itself after it
CLAIMED_AT_ONCE: Final = 64  # shards in one transaction


class Owner(NamedTuple):
    """The right to act for one shard."""

    key: str
    token: int

    def guard(self) -> Guard:
        """Require that it still holds."""
        return create_rev(self.key, self.token)


def shard_of(pair: str) -> int:
    """Return the shard of a pair: fixed for ever, so that every release maps it alike."""
    return blake2b(pair.encode(), digest_size=1).digest()[0] % keys.SHARD_COUNT


class Ownership:
    """The shards that this process owns."""

    def __init__(self, store: Store, clock: Clock, node: str) -> None:
        self._store, self._clock, self._node = store, clock, node
        self._lease = 0
        self._sent = 0.0  # clock seconds when the last keepalive was sent
        self._tokens: dict[int, int] = {}

    def owner(self, pair: str) -> Owner | None:
        """Return the right to act for a pair, None while another process has it or the lease may have run out."""
        shard = shard_of(pair)
        token = self._tokens.get(shard)
        if token is None or self._clock.monotonic() - self._sent > LEASE_SECONDS * TRUSTED:
            return None
        return Owner(keys.shard(shard), token)

    def keep(self) -> bool:
        """Keep the lease alive and claim every free shard, every few seconds; return whether any token changed."""
        sent = self._clock.monotonic()
        before = dict(self._tokens)
        try:
            if self._lease:
                self._store.keepalive(self._lease)
        except LeaseGone:
            self._lease, self._tokens = 0, {}
        if not self._lease:
            self._lease = self._store.lease(LEASE_SECONDS)
        self._sent = sent
        missing = [shard for shard in range(keys.SHARD_COUNT) if shard not in self._tokens]
        for start in range(0, len(missing), CLAIMED_AT_ONCE):
            self._claim(missing[start : start + CLAIMED_AT_ONCE])
        return self._tokens != before

    def release(self) -> None:
        """Give every shard back. Idempotent."""
        if self._lease:
            self._store.revoke(self._lease)
        self._lease, self._tokens = 0, {}

    def lost(self, pair: str) -> None:
        """A write was refused because the shard has another owner: forget it until it is free again."""
        self._tokens.pop(shard_of(pair), None)

    def _claim(self, shards: list[int]) -> None:
        free = [shard for shard in shards if self._store.get(keys.shard(shard)) is None]
        if not free:
            return
        owner = OwnerRecord(node=self._node)
        done = self._store.txn(
            [absent(keys.shard(shard)) for shard in free],
            [put(keys.shard(shard), owner, self._lease) for shard in free],
        )
        if done.ok:  # else another process claims too: what is free is looked at again at the next keepalive
            self._tokens |= dict.fromkeys(free, done.rev)
