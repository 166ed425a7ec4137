"""How an agent comes by its own credential: a one-time code, redeemed once and in time (R7)."""

from datetime import UTC, datetime, timedelta
from typing import Final

from farshore.admission import Desk
from farshore.api import tokens
from farshore.clock import rfc3339, seconds_between
from farshore.store import Change, Delete, Guard, keys
from farshore.store.records import AgentRecord, EnrolmentRecord, put, unchanged
from farshore_schema.access import EnrolCode, Redeemed, RedeemRequest
from farshore_schema.errors import Conflict, Permanent, Refused

CODES_MAX: Final = 100  # open at once; a code is for one site and minutes


def enrol(desk: Desk, site: str, *, by: str, good_for_seconds: float) -> EnrolCode:
    """Make a one-time code for a site. Raises Refused: unknown_site, not_possible_now."""
    if desk.records.site(site) is None:
        raise Refused("unknown_site", f'there is no site "{site}"', hint="declare it first", field="site")
    now = desk.clock.now()
    open_codes: list[str] = []
    swept: list[Change] = []
    for item in desk.records.store.list(keys.ENROLMENTS).items:
        record = desk.records.parsed(item, EnrolmentRecord).value
        if _is_over(record, now):
            swept.append(Delete(item.key))
        else:
            open_codes.append(item.key)
    if len(open_codes) >= CODES_MAX:
        raise Refused("not_possible_now", f"{CODES_MAX} codes are open", hint="wait until they run out")
    code = tokens.random_code()
    expires = rfc3339(datetime.fromisoformat(now).astimezone(UTC) + timedelta(seconds=good_for_seconds))
    record = EnrolmentRecord(site=site, expires=expires, by=by)
    desk.records.store.txn((), (*swept[:CODES_MAX], put(keys.enrolment(tokens.hashed(code)), record)))
    return EnrolCode(site=site, code=code, expires=expires)


def redeem(desk: Desk, request: RedeemRequest) -> Redeemed:
    """Turn a code into a credential, once. It replaces the credential of an agent that the site had before.

    Raises Permanent("unauthenticated") for a code that is unknown, used or over.
    """
    key = keys.enrolment(tokens.hashed(request.code.strip().upper()))
    found = desk.records.read(key, EnrolmentRecord)
    now = desk.clock.now()
    if found is None or _is_over(found.value, now):
        raise Permanent(
            "unauthenticated",
            "the code is not known, was used, or its 15 minutes are over",
            hint="make a new one: farshore agents enrol --site SITE",
        )
    site = found.value.site
    credential = tokens.random_token("agent")
    name = keys.token(tokens.hashed(credential))
    old = desk.records.read(keys.agent(site), AgentRecord)
    agent = AgentRecord(agent=request.agent, site=site, token_hash=tokens.hashed(credential), enrolled=now)
    record = tokens.new_record(credential, "agent", desk.clock, note=request.agent, by=found.value.by, sites=(site,))
    guards: list[Guard] = [found.unchanged(), unchanged(keys.agent(site), old)]
    changes: list[Change] = [Delete(key), put(keys.agent(site), agent), put(name, record)]
    if old is not None:
        changes.append(Delete(keys.token(old.value.token_hash)))
    if not desk.records.store.txn(guards, changes).ok:
        raise Conflict("unauthenticated", "the code was used by somebody else just now", current={"site": site})
    return Redeemed(agent=request.agent, sites=(site,), credential=credential)


def revoke(desk: Desk, site: str) -> str:
    """Take a site back from its enrolled agent; the embedded one serves it again. Raises Refused("not_found")."""
    found = desk.records.read(keys.agent(site), AgentRecord)
    if found is None:
        raise Refused("not_found", f'no agent is enrolled for site "{site}"', hint="farshore agents list")
    desk.records.store.txn((found.unchanged(),), (Delete(found.key), Delete(keys.token(found.value.token_hash))))
    return found.value.agent


def _is_over(record: EnrolmentRecord, now: str) -> bool:
    return seconds_between(record.expires, now) > 0
