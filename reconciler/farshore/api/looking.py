"""Asks both gateways to look at the endpoints of a declaration, at once and within bounds."""

import asyncio

from farshore.admission import Look, merged, site_of
from farshore.admission.endpoints import changed_paths
from farshore.api.ports import Services
from farshore.store.records import PairRecords
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import FarshoreError
from farshore_schema.roles import SIDES, Side


async def look(given: Services, document: MySQLPair, *, existing: bool) -> Look:
    """Return what the gateways of both sites see. One that does not answer is a sentence in `unseen`."""
    answers = await asyncio.gather(*(_one(given, document, side, existing) for side in SIDES))
    return merged(zip(SIDES, answers, strict=True))


def is_due(now: PairRecords, document: MySQLPair) -> bool:
    """Say whether a declaration is worth a look: a new pair, one that was never decided, or a changed endpoint.

    Everything else is observed all the time anyway; a thousand unchanged pairs must not cost a thousand logins.
    """
    if now.spec is None or now.role is None:
        return True
    return any(path.startswith(("site_a", "site_b")) for path in changed_paths(now.spec.value.document, document))


async def _one(given: Services, document: MySQLPair, side: Side, existing: bool) -> Look:
    try:
        seen = await given.agents.inspect(document, side, existing, timeout_seconds=given.settings.inspect_seconds)
    except FarshoreError as error:
        return Look(unseen=(f"the endpoint at {site_of(document, side)} was not checked: {error.message}",))
    return Look(findings=seen.findings, servers=seen.servers, empty=seen.empty)
