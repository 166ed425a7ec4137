"""Binds an endpoint to the one server that was first seen behind it (R1, R3), for admission and for the loop."""

from farshore.admission.desk import Decided, Desk, settle
from farshore.store import Change, Guard, keys
from farshore.store.records import Records, ServerRecord, ServersRecord, put, unchanged
from farshore_schema.errors import FarshoreError, Refused
from farshore_schema.roles import SIDES, Side


def bind_server(desk: Desk, pair: str, side: Side, uuid: str, *holding: Guard) -> str:
    """Bind a side to the server seen there, unless it is bound; return the server it is bound to.

    `holding` must hold too: the loop may only write while it owns the pair's shard (I6).

    A consent that was given before any server had been seen is completed with this one, in the same transaction: it is
    for the first server seen, and for no later one (R9). Raises Refused: same_server, server_in_other_pair, not_found.
    """

    def consider() -> tuple[Decided, str]:
        now = desk.records.pair(pair)
        if now.spec is None:
            raise Refused("not_found", f'there is no pair "{pair}"')
        servers = now.servers.value if now.servers else ServersRecord()
        bound = servers.of(side)
        if bound is not None:
            return Decided((), ()), bound
        problem, guards, changes = claim(desk.records, pair, {side: uuid})
        if problem is not None:
            raise problem
        guards += [*holding, now.spec.unchanged(), unchanged(keys.pair_servers(pair), now.servers)]
        changes.append(put(keys.pair_servers(pair), servers.model_copy(update={side: uuid})))
        operation = now.operation
        consent = operation.value.consent if operation else None
        if operation is not None and consent is not None and consent.side == side and not consent.server:
            guards.append(operation.unchanged())
            completed = operation.value.model_copy(update={"consent": consent._replace(server=uuid)})
            changes.append(put(operation.key, completed))
        return Decided(guards, changes), uuid

    return settle(desk, consider)


def claim(
    records: Records, pair: str, servers: dict[Side, str]
) -> tuple[FarshoreError | None, list[Guard], list[Change]]:
    """Return the changes that make these servers this pair's, or why they cannot be."""
    guards: list[Guard] = []
    changes: list[Change] = []
    for side in SIDES:
        uuid = servers.get(side)
        if not uuid:
            continue
        key = keys.server(uuid)
        found = records.read(key, ServerRecord)
        if found is not None and found.value != ServerRecord(pair=pair, side=side):
            return _taken(pair, side, uuid, found.value), [], []
        guards.append(unchanged(key, found))
        if found is None:
            changes.append(put(key, ServerRecord(pair=pair, side=side)))
    return None, guards, changes


def _taken(pair: str, side: Side, uuid: str, holder: ServerRecord) -> FarshoreError:
    field = f"site_{side}.host"
    if holder.pair == pair:
        return Refused("same_server", f"both endpoints lead to server {uuid}", hint="name two servers", field=field)
    return Refused(
        "server_in_other_pair",
        f'server {uuid} is an endpoint of pair "{holder.pair}"; one server belongs to one pair',
        hint=f"farshore describe {holder.pair}",
        field=field,
    )
