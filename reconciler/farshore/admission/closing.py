"""The one transaction that ends an operation, for whoever carries operations out: journal, declaration, removal.

An operation that ended well leaves the declaration as it was accepted. One that did not takes back what the declaration
said about roles, so that the same value can be declared, and asked for, anew (R11). A finished removal buries the pair.
"""

from collections.abc import Sequence
from typing import Final

from farshore.admission.desk import Decided
from farshore.store import Change, Delete, Guard, keys
from farshore.store.records import (
    GraveRecord,
    PairRecord,
    PairRecords,
    Records,
    UsesRecord,
    Versioned,
    put,
    unchanged,
)
from farshore_schema.status import OperationView

HISTORY_MAX: Final = 200  # ended operations kept for one name


def ending(records: Records, open_operation: Versioned[OperationView], ended: OperationView) -> Decided:
    """Return the guards and changes that end an operation; add the owner's token guard, and commit them together."""
    name = ended.pair
    now = records.pair(name)
    guards: list[Guard] = [open_operation.unchanged()]
    changes: list[Change] = [put(keys.ended_operation(name, ended.id), ended), *_forgotten(records, name)]
    if ended.verb == "remove" and ended.state == "done":
        buried = burial(records, now)
        return Decided((*guards, *buried.guards), (*changes, *buried.changes))
    changes.append(Delete(keys.operation(name)))
    if now.spec is not None and now.spec.value.undo is not None and now.spec.value.undo.operation == ended.id:
        guards.append(now.spec.unchanged())
        changes.append(put(now.spec.key, _settled(now.spec.value, well=ended.state == "done")))
    return Decided(guards, changes)


def burial(records: Records, now: PairRecords) -> Decided:
    """Return what removes a pair from the store and keeps what must outlive it; its ended operations stay."""
    if now.spec is None:
        return Decided((), ())
    document = now.spec.value.document
    name = document.name
    epochs = [now.role.value.epoch if now.role else 0, now.operation.value.epoch if now.operation else 0]
    changes: list[Change] = [
        Delete(key(name)) for key in (keys.spec, keys.role, keys.operation, keys.pair_servers, keys.status)
    ]
    if now.servers is not None:
        bound = (now.servers.value.a, now.servers.value.b)
        changes += [Delete(keys.server(uuid)) for uuid in bound if uuid is not None]
    changes.append(put(keys.grave(name), GraveRecord(incarnation=now.spec.value.incarnation, epoch=max(epochs))))
    counted = counting(records, (document.site_a.site, document.site_b.site), by=-1)
    return Decided((now.spec.unchanged(), *counted.guards), (*changes, *counted.changes))


def counting(records: Records, sites: Sequence[str], *, by: int) -> Decided:
    """Return what counts a pair at its sites, in or out."""
    guards: list[Guard] = []
    changes: list[Change] = []
    for site in sites:
        uses = records.uses(site)
        guards.append(unchanged(keys.uses(site), uses))
        left = (uses.value.pairs if uses else 0) + by
        changes.append(put(keys.uses(site), UsesRecord(pairs=left)) if left else Delete(keys.uses(site)))
    return Decided(guards, changes)


def _settled(spec: PairRecord, *, well: bool) -> PairRecord:
    undo = spec.undo
    if well or undo is None:
        return spec.model_copy(update={"undo": None})
    document = spec.document.model_copy(
        update={"primary_site": undo.primary_site, "acknowledge_epoch": undo.acknowledge_epoch}
    )
    return spec.model_copy(update={"undo": None, "document": document, "generation": spec.generation + 1})


def _forgotten(records: Records, name: str) -> Sequence[Delete]:
    """Return the deletion of the oldest ended operations beyond the bound (ids sort by time)."""
    kept = records.store.list(keys.operations(name), limit=HISTORY_MAX + 8).items
    return [Delete(item.key) for item in kept[: max(0, len(kept) + 1 - HISTORY_MAX)]]
