"""Before the first row: look at both sides, refuse what must be refused, then take possession of the target.

Everything that can be refused is refused before `before_first_write`; from there on the target is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from farshore_agent.mysql.accounts import AccountKind, missing_in
from farshore_agent.mysql.seed.errors import SeedPermanent, TargetHoldsData
from farshore_agent.mysql.seed.footprint import Footprint, read_footprint
from farshore_agent.mysql.seed.inspect import (
    RESERVED_USERS,
    Facts,
    accounts_of,
    check_no_channel,
    check_pair,
    login_of,
    missing_on_target,
    not_innodb,
    read_facts,
    source_contents,
    target_contents,
)
from farshore_agent.mysql.seed.servers import kill_left_behind
from farshore_agent.mysql.seed.session import Session
from farshore_agent.mysql.seed.system_rows import roles_of
from farshore_agent.mysql.seed.target import close_target
from farshore_agent.mysql.seed.values import Account, Remark, SeedSettings, TargetContents

ACCOUNTS_SHOWN_MAX = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """What is known of both sides; the target is closed."""

    source: Facts
    target: Facts
    """Settings as they were before the seed."""
    skip: tuple[Account, ...]
    """Accounts left alone: given ones, logins, and the roles that these hold."""
    skipped: tuple[Account, ...]
    """Accounts of the source that are not carried."""
    remarks: tuple[Remark, ...]


def prepare(
    source: Session,
    target: Session,
    settings: SeedSettings,
    *,
    state_directory: Path,
    overwrite: bool,
    before_first_write: Callable[[], None],
) -> Prepared:
    """Check both sides, call `before_first_write`, close the target.

    Raises SeedPermanent, TargetHoldsData among them, with nothing changed.
    """
    source_facts, target_facts = read_facts(source), read_facts(target)
    remarks = check_pair(source_facts, target_facts, not_innodb(source, settings))
    _require_rights(source, AccountKind.REPLICATION)
    _require_rights(target, AccountKind.ADMIN)
    kill_left_behind(target)
    check_no_channel(target)
    if not target_facts.on("persisted_globals_load"):
        raise SeedPermanent(
            "persisted_globals_load is OFF on the target: it could not be kept closed through a restart",
            hint="start the target with persisted_globals_load=ON",
        )
    logins = (*settings.skip_accounts, login_of(source), login_of(target))
    skip = tuple(dict.fromkeys((*logins, *roles_of(target, logins))))
    footprint = read_footprint(state_directory, target_facts["server_uuid"])
    if not overwrite:
        _require_no_data(target_contents(target, settings), footprint)
        _require_no_accounts(accounts_of(source), accounts_of(target), skip, footprint)
    remarks += source_contents(source, settings).remarks + missing_on_target(source, target)
    before_first_write()
    close_target(target)
    return Prepared(
        source=source_facts,
        target=target_facts,
        skip=skip,
        skipped=tuple(each for each in accounts_of(source) if _left_alone(each, skip)),
        remarks=remarks,
    )


def _require_rights(session: Session, kind: AccountKind) -> None:
    """Refuse an account that lacks a right: without TRIGGER, say, triggers would be missing in silence."""
    login = login_of(session)
    grants = [row[0] for row in session.ask("SHOW GRANTS").names()]
    missing = missing_in(grants, kind, user=login.user, host=login.host)
    if missing:
        names = ", ".join(each.privilege for each in missing)
        raise SeedPermanent(
            f"the account {login} of the {session.side} lacks {names}",
            hint=f"on the {session.side}: " + "; ".join(each.grant for each in missing),
        )


def _left_alone(account: Account, skip: tuple[Account, ...]) -> bool:
    return account.user == "root" or account.user in RESERVED_USERS or account in skip


def _require_no_data(contents: TargetContents, footprint: Footprint) -> None:
    """Refuse schemas that an unfinished seed of ours did not make."""
    if all(schema.name in footprint.schemas for schema in contents.schemas):
        return
    raise TargetHoldsData(
        f"the target holds data: {contents.describe()}",
        hint="is the direction right? To have it replaced, declare on_existing_data: overwrite",
    )


def _require_no_accounts(
    source: tuple[Account, ...], target: tuple[Account, ...], skip: tuple[Account, ...], footprint: Footprint
) -> None:
    """Refuse accounts that a copy of the source's would drop."""
    strange = [
        each
        for each in target
        if each not in source and not _left_alone(each, skip) and str(each) not in footprint.accounts
    ]
    if strange:
        names = ", ".join(str(each) for each in strange[:ACCOUNTS_SHOWN_MAX])
        raise TargetHoldsData(
            f"the target has {len(strange)} accounts that the source has not, a seed would drop them: {names}",
            hint="drop them, create them on the source, or declare on_existing_data: overwrite",
        )
