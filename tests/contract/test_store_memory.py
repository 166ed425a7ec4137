"""The store's contract on memory, and the laws that need threads or limits."""

from __future__ import annotations

import threading

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from farshore.store import (
    TXN_CHANGES_MAX,
    VALUE_BYTES_MAX,
    Compacted,
    Delete,
    Put,
    Store,
    absent,
    mod_rev,
)
from farshore.store.memory import MemoryStore
from tests.contract.store_suite import StoreMachine

WRITERS, INCREMENTS = 4, 50


class MemoryMachine(StoreMachine):
    """The contract on memory."""

    def open(self) -> Store:
        return MemoryStore(self.clock)


def test_memory_keeps_the_contract() -> None:
    """Every sequence of calls answers as the model does."""
    run_state_machine_as_test(MemoryMachine, settings=settings(max_examples=150, stateful_step_count=40, deadline=None))


def test_guarded_increments_from_many_threads_are_never_lost() -> None:
    """Reading a counter and writing it under its revision is atomic: the sum of all increments is there."""
    store = MemoryStore()
    store.txn((), (Put("/n", b"0"),))

    def add() -> None:
        done = 0
        while done < INCREMENTS:
            item = store.get("/n")
            assert item is not None
            done += store.txn((mod_rev("/n", item.mod_rev),), (Put("/n", b"%d" % (int(item.value) + 1)),)).ok

    threads = [threading.Thread(target=add) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = store.get("/n")
    assert found is not None
    assert int(found.value) == WRITERS * INCREMENTS
    assert found.mod_rev == WRITERS * INCREMENTS + 1


def test_a_watcher_that_is_too_far_behind_is_told() -> None:
    """A log that no longer reaches back raises Compacted instead of skipping a change."""
    store = MemoryStore(events_kept=4)
    watch = store.watch("/", 0)
    for number in range(20):
        store.txn((), (Put(f"/{number}", b""), Put(f"/{number}/twin", b"")))
    with pytest.raises(Compacted):
        watch.poll()
    page = store.list("/")
    assert store.watch("/", page.rev).poll() == ()


def test_a_commit_wakes_the_watchers_of_its_prefix_only() -> None:
    """`on_change` is called after the commit, in time to read it, and not for other prefixes or refused guards."""
    store = MemoryStore()
    woken: list[str] = []
    for prefix in ("/a/", "/b/"):
        store.watch(prefix, 0).on_change(lambda prefix=prefix: woken.append(prefix))  # type: ignore[misc]
    store.txn((), (Put("/a/1", b""),))
    store.txn((absent("/a/1"),), (Put("/b/1", b""),))
    store.txn((), (Delete("/b/none"),))
    assert woken == ["/a/"]


def test_a_closed_watch_is_not_woken() -> None:
    """After `close` nothing is called; a second close changes nothing."""
    store = MemoryStore()
    woken: list[str] = []
    watch = store.watch("/", 0)
    watch.on_change(lambda: woken.append("x"))
    watch.close()
    watch.close()
    store.txn((), (Put("/a", b""),))
    assert woken == []


@pytest.mark.parametrize(
    "changes",
    [
        [Put("/a", b""), Delete("/a")],
        [Put("no-slash", b"")],
        [Put("/" + "k" * 600, b"")],
        [Put("/a", b"v" * (VALUE_BYTES_MAX + 1))],
        [Put(f"/{n}", b"") for n in range(TXN_CHANGES_MAX + 1)],
    ],
    ids=["twice", "not a key", "long key", "big value", "too many"],
)
def test_what_no_engine_may_accept_is_refused(changes: list[Put | Delete]) -> None:
    """Limits are the same for every engine and refuse the whole transaction."""
    store = MemoryStore()
    with pytest.raises(ValueError, match=r"."):
        store.txn((), changes)
    assert store.snapshot() == {}
