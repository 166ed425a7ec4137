"""What `doctor` says of the two servers of a pair together: whether one can follow the other, and later be followed.

Rules as in `rules`, over two portraits. It opens no connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from farshore_agent.mysql.portrait import TABLES_MAX, Portrait
from farshore_agent.mysql.rules import found, some
from farshore_schema.documents import MySQLPair
from farshore_schema.observed import Finding

CLOCK_SKEW_SECONDS: Final = 1.0
_PROXY: Final = "daemon_keyring_proxy_plugin"  # always there; it holds no keys


def of_pair(source: Portrait, target: Portrait, document: MySQLPair) -> Iterator[Finding]:
    """Judge two servers together; `source` is the one whose data the other gets first."""
    if source.server and source.server == target.server:
        yield Finding(
            code="same_server",
            severity="error",
            message=f"site_a and site_b both lead to the server {source.server}",
            hint="name two different servers; a DNS alias or a floating address may lead to the same one",
            field=f"site_{target.side}.host",
            side=target.side,
        )
        return
    yield from _versions(source, target)
    yield from _formats(source, target)
    yield from _missing_at_target(source, target)
    yield from _clocks(source, target)
    yield from _logins(document)
    yield from _direction(source, target)


def _versions(source: Portrait, target: Portrait) -> Iterator[Finding]:
    if target.series == source.series:
        return
    older = target.series < source.series
    yield found(
        target,
        "error" if older else "warning",
        "version_mismatch",
        f"it runs MySQL {target.version}, the other side {source.version}: "
        + (
            "an older server cannot follow a newer one"
            if older
            else "it can follow, but there is no way back: a switchover to it would be one-way (R2)"
        ),
        "bring both servers to one release series",
    )


def _formats(source: Portrait, target: Portrait) -> Iterator[Finding]:
    for name in ("lower_case_table_names", "innodb_page_size"):
        here, there = target.variables.get(name), source.variables.get(name)
        if here != there:
            yield found(
                target,
                "error",
                "unsuitable_server",
                f"{name} is {here} here and {there} on the other side",
                f"initialise a new data directory with {name}={there}",
            )
    for name in ("max_allowed_packet",):
        here_bytes, there_bytes = (int(each.variables.get(name, "0")) for each in (target, source))
        if here_bytes < there_bytes:
            yield found(
                target,
                "warning",
                "packet_smaller",
                f"{name} is {here_bytes} here and {there_bytes} on the other side: clients that move over may not be "
                "able to send their largest rows",
                f"SET PERSIST {name} = {there_bytes};",
            )
    received = int(target.variables.get("replica_max_allowed_packet", "1073741824"))
    if received < int(source.variables.get("max_allowed_packet", "0")):
        yield found(
            target,
            "warning",
            "packet_smaller",
            f"replica_max_allowed_packet is {received}: a larger transaction of the other side stops the applier",
            "SET PERSIST replica_max_allowed_packet = 1073741824;",
        )


def _missing_at_target(source: Portrait, target: Portrait) -> Iterator[Finding]:
    """What the source's objects may need and the target does not have: known to stop an applier."""
    collations = sorted(source.collations - target.collations) if target.collations else []
    if collations:
        yield found(
            target, "error", "unsuitable_server",
            f"{len(collations)} collations of the other side are missing: {some(tuple(collations))}",
            "install the same server build",
        )  # fmt: skip
    needs = (
        ("authentication plugins used by accounts", source.account_plugins - target.plugins, "INSTALL PLUGIN"),
        ("components", source.components - target.components, "INSTALL COMPONENT"),
        ("loadable functions", source.functions - target.functions, "CREATE FUNCTION ... SONAME"),
    )
    for what, lacking, verb in needs:
        if lacking:
            names = tuple(sorted(lacking))
            yield found(
                target,
                "warning",
                "missing_on_target",
                f"{what} of the other side are missing: {some(names)}; what uses them stops the applier",
                "; ".join(f"{verb} {name}" for name in names[:TABLES_MAX]) + ";",
            )
    keyrings = [each for each in (*target.plugins, *target.components) if "keyring" in each and each != _PROXY]
    if source.encrypted_tables and not keyrings:
        yield found(
            target,
            "warning",
            "missing_on_target",
            f"{source.encrypted_tables} tables of the other side are encrypted, and here is no keyring",
            "configure a keyring component, and restart it",
        )
    if not target.on("local_infile"):
        yield found(
            target,
            "note",
            "local_infile_off",
            "local_infile is OFF; a seed switches it on while it copies, and off after",
        )
    if source.size.data_bytes:
        gib = source.size.data_bytes / 2**30
        yield found(
            target,
            "note",
            "disk_space",
            f"the other side holds about {gib:.1f} GiB; free space of a server cannot be seen over SQL",
            "see that the data directory has room for it",
        )


def _clocks(source: Portrait, target: Portrait) -> Iterator[Finding]:
    skew = target.clock_offset_seconds - source.clock_offset_seconds
    if abs(skew) > CLOCK_SKEW_SECONDS:
        yield found(
            target,
            "warning",
            "clock_skew",
            f"its clock is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} the other side's",
            "synchronise both machines' clocks, for example with chrony",
        )


def _logins(document: MySQLPair) -> Iterator[Finding]:
    """R6: accounts replicate, so a name used on both sides must mean one account with one secret."""
    first, second = ({"admin": at.admin, "replication": at.replication} for at in (document.site_a, document.site_b))
    for kind_a, login_a in first.items():
        for kind_b, login_b in second.items():
            if login_a.user == login_b.user and login_a.password != login_b.password:
                yield Finding(
                    code="unsuitable_server",
                    severity="error",
                    message=f"the user {login_a.user} is the {kind_a} account of site_a and the {kind_b} account of "
                    "site_b, with different secrets; accounts replicate, so one of them would stop working",
                    hint="give every account of both sites a name of its own",
                    field=f"site_b.{kind_b}.user",
                    side="b",
                )


def _direction(source: Portrait, target: Portrait) -> Iterator[Finding]:
    here, there = target.role, source.role
    if here is not None and (there is None or here.active_since_epoch > there.active_since_epoch):
        yield found(
            target,
            "error",
            "wrong_direction",
            f"its role marker says that it is the active side of {here.pair} since epoch {here.active_since_epoch}",
            f"declare primary_site: {here.site}; or DROP TABLE farshore.role_marker there if that is long past",
        )
