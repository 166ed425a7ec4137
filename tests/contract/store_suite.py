"""The contract of every store engine, as a state machine against a model that is written independently of them.

An engine's test file subclasses `StoreMachine` and says how to open, and how to open again after a stop.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from farshore.store import (
    Compacted,
    Delete,
    Event,
    Guard,
    Item,
    LeaseGone,
    Put,
    Store,
    Watch,
    absent,
    create_rev,
    mod_rev,
)

KEYS = ("/a", "/a/x", "/a/y", "/a0", "/b/é", "/b/\U0001f600", "/b")
PREFIXES = ("/", "/a", "/a/", "/b/", "/none/")
SECONDS = st.sampled_from((0.5, 1.0, 3.0))

a_key = st.sampled_from(KEYS)
a_value = st.binary(max_size=8)


class HandClock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def monotonic(self) -> float:
        """Return the time the test has set."""
        return self.seconds

    def now(self) -> str:
        """Return a fixed label."""
        return "2026-01-01T00:00:00.000Z"


@dataclass
class Model:
    """What a store must answer, kept in the simplest way."""

    items: dict[str, Item] = field(default_factory=dict)
    rev: int = 0
    leases: dict[int, tuple[float, float]] = field(default_factory=dict)  # id -> (ttl, deadline)
    events: list[Event] = field(default_factory=list)
    kept_from: int = 0  # events up to this revision may be gone

    def apply(self, then: list[Put | Delete]) -> None:
        changed: list[tuple[str, bool]] = []
        rev = self.rev + 1
        for change in then:
            old = self.items.get(change.key)
            if isinstance(change, Put):
                created = old.create_rev if old else rev
                self.items[change.key] = Item(change.key, change.value, rev, created, change.lease)
                changed.append((change.key, False))
            elif old:
                del self.items[change.key]
                changed.append((change.key, True))
        if changed:
            self.rev = rev
            self.events += [Event(rev, key, deleted) for key, deleted in changed]

    def expire(self, now: float) -> None:
        for lease in [lease for lease, (_, deadline) in self.leases.items() if deadline <= now]:
            self.end(lease)

    def end(self, lease: int) -> None:
        self.leases.pop(lease, None)
        self.apply([Delete(key) for key, item in sorted(self.items.items()) if item.lease == lease])

    def true(self, guard: Guard) -> bool:
        item = self.items.get(guard.key)
        revision = 0 if item is None else item.mod_rev if guard.of == "mod" else item.create_rev
        return revision == guard.revision

    def below(self, prefix: str) -> list[Item]:
        return [self.items[key] for key in sorted(self.items) if key.startswith(prefix)]


@dataclass
class Reader:
    """A watch with what it must have seen."""

    watch: Watch
    prefix: str
    from_rev: int
    seen: list[Event] = field(default_factory=list)

    def reached(self) -> int:
        """Return the revision the reader knows it has seen everything up to."""
        return self.seen[-1].rev if self.seen else self.from_rev


class StoreMachine(RuleBasedStateMachine):
    """Every call in every order, against the model."""

    leases = Bundle("leases")
    readers = Bundle("readers")

    def open(self) -> Store:
        """Return a new engine on `self.clock`; its log keeps so many events that nothing is lost in one run."""
        raise AssertionError("an engine's test says how to open it")

    def reopen(self) -> bool:
        """Stop and open the engine again on the same data; False when it has none."""
        return False

    def __init__(self) -> None:
        super().__init__()
        self.clock = HandClock()
        self.model = Model()
        self.readers_open: list[Reader] = []
        self.store: Store = self.open()

    def teardown(self) -> None:
        self.store.close()

    def sync(self) -> None:
        """Let leases run out in the model, as any call does in the store."""
        self.model.expire(self.clock.seconds)

    @initialize()
    def begin(self) -> None:
        """A new store is empty, at revision 0."""
        assert self.store.list("/") == ((), 0)

    @rule(key=a_key)
    def get(self, key: str) -> None:
        """`get` returns the newest value with its history."""
        self.sync()
        assert self.store.get(key) == self.model.items.get(key)

    @rule(prefix=st.sampled_from(PREFIXES), limit=st.integers(1, 4), after=st.sampled_from(("", *KEYS)))
    def list_part(self, prefix: str, limit: int, after: str) -> None:
        """`list` returns the smallest keys below the prefix and above `after`, at one revision."""
        self.sync()
        page = self.store.list(prefix, limit=limit, after=after)
        expected = [item for item in self.model.below(prefix) if item.key > after][:limit]
        assert list(page.items) == expected
        assert page.rev == self.model.rev

    @rule(
        then=st.lists(
            st.one_of(st.builds(Put, a_key, a_value, st.just(0)), st.builds(Delete, a_key)),
            max_size=4,
            unique_by=lambda c: c.key,
        ),
        guards=st.lists(st.tuples(a_key, st.sampled_from(("mod", "create", "absent")), st.integers(-1, 1)), max_size=3),
    )
    def txn(self, then: list[Put | Delete], guards: list[tuple[str, str, int]]) -> None:
        """A transaction changes everything or nothing, and tells the truth about its guards when it fails."""
        self.sync()
        if_: list[Guard] = []
        for key, kind, error in guards:
            item = self.model.items.get(key)
            if kind == "absent":
                if_.append(absent(key))
            elif kind == "mod":
                if_.append(mod_rev(key, max(0, (item.mod_rev if item else 0) + error)))
            else:
                if_.append(create_rev(key, max(0, (item.create_rev if item else 0) + error)))
        answer = self.store.txn(if_, then)
        assert answer.ok == all(self.model.true(guard) for guard in if_)
        if answer.ok:
            self.model.apply(then)
        else:
            assert answer.current == {guard.key: self.model.items.get(guard.key) for guard in if_}
        assert answer.rev == self.model.rev

    @rule(target=leases, ttl=SECONDS)
    def lease(self, ttl: float) -> int:
        """A lease lives for its time."""
        self.sync()
        lease = self.store.lease(ttl)
        assert lease > 0
        assert lease not in self.model.leases
        self.model.leases[lease] = (ttl, self.clock.seconds + ttl)
        return lease

    @rule(lease=leases, key=a_key, value=a_value)
    def put_under_lease(self, lease: int, key: str, value: bytes) -> None:
        """A key may be bound to a live lease only."""
        self.sync()
        put = Put(key, value, lease)
        if lease in self.model.leases:
            assert self.store.txn((), (put,)).ok
            self.model.apply([put])
        else:
            try:
                self.store.txn((), (put,))
            except LeaseGone:
                return
            raise AssertionError("a dead lease was accepted")

    @rule(lease=leases)
    def keepalive(self, lease: int) -> None:
        """A keepalive starts a live lease anew and says so when it is gone."""
        self.sync()
        known = self.model.leases.get(lease)
        try:
            self.store.keepalive(lease)
        except LeaseGone:
            assert known is None
        else:
            assert known is not None
            self.model.leases[lease] = (known[0], self.clock.seconds + known[0])

    @rule(lease=consumes(leases))
    def revoke(self, lease: int) -> None:
        """Revoking deletes the lease's keys; again changes nothing."""
        self.sync()
        self.store.revoke(lease)
        self.model.end(lease)
        self.store.revoke(lease)

    @rule(seconds=SECONDS)
    def time_passes(self, seconds: float) -> None:
        """Leases run out by the clock alone."""
        self.clock.seconds += seconds

    @rule(target=readers, prefix=st.sampled_from(PREFIXES))
    def watch(self, prefix: str) -> Reader:
        """A watch begins after the revision of the caller's listing."""
        self.sync()
        rev = self.store.list(prefix).rev
        reader = Reader(self.store.watch(prefix, rev), prefix, rev)
        self.readers_open.append(reader)
        return reader

    @rule(reader=readers, limit=st.integers(1, 3))
    def poll(self, reader: Reader, limit: int) -> None:
        """A watch yields every change once, in order, whole revisions at a time, or says that it cannot."""
        self.sync()
        expected = [e for e in self.model.events if e.rev > reader.from_rev and e.key.startswith(reader.prefix)]
        try:
            events = reader.watch.poll(limit)
        except Compacted:
            assert reader.reached() < self.model.kept_from
            return
        reader.seen += events
        assert reader.seen == expected[: len(reader.seen)]
        assert events or len(reader.seen) == len(expected)
        following = expected[len(reader.seen) : len(reader.seen) + 1]
        assert not (events and following) or following[0].rev != events[-1].rev, "a revision was cut in two"

    @rule()
    def restart(self) -> None:
        """After a stop everything acknowledged is there, no lease is, and watchers go on or are told so."""
        self.sync()
        if not self.reopen():
            return
        for lease in sorted(self.model.leases):
            self.model.end(lease)
        self.model.leases.clear()
        self.model.kept_from = self.store.list("/").rev
        for reader in self.readers_open:
            reader.watch = self.store.watch(reader.prefix, reader.reached())

    @invariant()
    def everything_is_as_the_model_says(self) -> None:
        """The whole content agrees at every step."""
        self.sync()
        page = self.store.list("/")
        assert {item.key: item for item in page.items} == self.model.items
        assert page.rev == self.model.rev
