"""What a PUT or DELETE of a site does. As for pairs, a replaced declaration's late DELETE is a no-op (R24)."""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from farshore.admission.desk import Decided, Desk, settle
from farshore.store import Change, Delete, keys
from farshore.store.records import AgentRecord, SiteRecord, put, unchanged
from farshore_schema.documents import Site
from farshore_schema.errors import Refused
from farshore_schema.status import SiteView

_NAMED_MAX: Final = 5  # pairs that a refusal names


def put_site(desk: Desk, name: str, document: Site, *, create: bool = False) -> SiteView:
    """Accept a declared site. Idempotent; `create` adopts an existing one and raises its incarnation."""
    if document.name != name:
        raise Refused("invalid_request", f'the document names "{document.name}", the address "{name}"', field="name")

    def consider() -> tuple[Decided, SiteView]:
        found = desk.records.site(name)
        if found is None:
            fresh = SiteRecord(document=document, created=desk.clock.now())
        else:
            old = found.value
            fresh = old.model_copy(
                update={
                    "document": document,
                    "generation": old.generation + (old.document != document),
                    "incarnation": old.incarnation + create,
                }
            )
        if found is not None and fresh == found.value:
            return Decided((), ()), site_view(fresh)
        return Decided((unchanged(keys.site(name), found),), (put(keys.site(name), fresh),)), site_view(fresh)

    return settle(desk, consider)


def delete_site(desk: Desk, name: str, *, incarnation: int | None = None) -> bool:
    """Forget a site; return whether anything was deleted. A repeat and an older incarnation are successes.

    Raises Refused("site_in_use") while a pair names it.
    """

    def consider() -> tuple[Decided, bool]:
        found = desk.records.site(name)
        if found is None or (incarnation is not None and incarnation < found.value.incarnation):
            return Decided((), ()), False
        uses = desk.records.uses(name)
        if uses is not None and uses.value.pairs:
            named = ", ".join(islice(_pairs_at(desk, name), _NAMED_MAX))
            raise Refused(
                "site_in_use",
                f'site "{name}" is still used by {uses.value.pairs} pair(s): {named}',
                hint="delete the pairs first; their data is kept",
            )
        agent = desk.records.read(keys.agent(name), AgentRecord)
        guards = (found.unchanged(), unchanged(keys.uses(name), uses), unchanged(keys.agent(name), agent))
        changes: list[Change] = [Delete(keys.site(name))]
        if agent is not None:  # its credential is bound to this site and useless without it
            changes += [Delete(agent.key), Delete(keys.token(agent.value.token_hash))]
        return Decided(guards, changes), True

    return settle(desk, consider)


def site_view(record: SiteRecord) -> SiteView:
    """Return the site as people see it."""
    return SiteView(
        document=record.document,
        generation=record.generation,
        incarnation=record.incarnation,
        created=record.created,
    )


def _pairs_at(desk: Desk, site: str) -> Iterator[str]:
    for spec in desk.records.specs():
        if site in (spec.value.document.site_a.site, spec.value.document.site_b.site):
            yield spec.value.document.name
