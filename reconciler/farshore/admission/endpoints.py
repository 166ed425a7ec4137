"""Who the endpoints of a declaration are: what may change in place, and which servers they are bound to (R3)."""

from farshore.admission.looks import Look
from farshore.store.records import ServersRecord
from farshore_schema.documents import MySQLEndpoint, MySQLPair
from farshore_schema.errors import FarshoreError, Refused
from farshore_schema.roles import SIDES, Side


def endpoint(document: MySQLPair, side: Side) -> MySQLEndpoint:
    """Return one side's endpoint."""
    return document.site_a if side == "a" else document.site_b


def changed_paths(old: MySQLPair, new: MySQLPair) -> tuple[str, ...]:
    """Return the document paths whose values differ, such as site_b.admin.password, in the document's order."""
    return tuple(_differences(old.model_dump(), new.model_dump(), ""))


def identity_changes(
    old: MySQLPair, new: MySQLPair, bound: ServersRecord, look: Look, *, decided: bool
) -> list[FarshoreError]:
    """Return why the endpoints are no longer the same ones.

    A site never changes. A host or port may change its name when a gateway saw that it still leads to the server that
    the endpoint is bound to; before anything was bound or decided it may change freely.
    """
    found: list[FarshoreError] = []
    for side in SIDES:
        before, after = endpoint(old, side), endpoint(new, side)
        if before.site != after.site:
            found.append(
                _refused(new.name, f"site_{side}.site", f'moving it from site "{before.site}" to "{after.site}"')
            )
        elif (before.host, before.port) != (after.host, after.port):
            server = bound.of(side)
            if (server is None and not decided) or (server is not None and look.servers.get(side) == server):
                continue
            field = f"site_{side}.host" if before.host != after.host else f"site_{side}.port"
            seen = look.servers.get(side)
            story = (
                f"{after.host}:{after.port} leads to server {seen}, the pair is bound to {server or 'another one'}"
                if seen
                else f"nobody could see that {after.host}:{after.port} is still the same server"
            )
            found.append(_refused(new.name, field, story))
    return found


def _refused(pair: str, field: str, story: str) -> FarshoreError:
    return Refused(
        "identity_change",
        f"an endpoint's identity cannot change in place: {story}",
        hint=(
            "if the same server only has a new name, start the gateway of its site and apply again; if the active "
            "server was replaced, let the new one answer at the declared host and port, then run "
            f"`farshore rebind {pair}`; for another server: declare a new pair under a new name, wait until it is "
            f"protected, then delete {pair} (its data is kept)"
        ),
        field=field,
    )


def _differences(old: object, new: object, path: str) -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in [*old, *(key for key in new if key not in old)]:
            found += _differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return found
    return [] if old == new else [path]
