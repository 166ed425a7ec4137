"""`doctor` on real servers: every finding provoked for what it says it found, and mended by the words of its hint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from farshore_agent.engines import Look
from farshore_agent.mysql import pair_rules, rules
from farshore_agent.mysql.accounts import creation_statements
from farshore_agent.mysql.connections import address, dial
from farshore_agent.mysql.inspect import look
from farshore_agent.mysql.marker import Marker
from farshore_agent.mysql.portrait import Portrait, paint
from farshore_schema.documents import MySQLPair
from farshore_schema.errors import Permanent
from farshore_schema.observed import Finding
from farshore_schema.roles import Side, peer
from tests.e2e.mysql.sites import SECRETS, Sites
from tests.testbed.mysql import MySQLServer

pytestmark = pytest.mark.mysql


def examined(sites: Sites, own: Side = "a", *, existing: bool = False, **endpoint: Any) -> Look:
    """Look as the gateway of `own` does; `endpoint` changes the other side's declaration."""
    document = sites.document
    if endpoint:
        key = f"site_{peer(own)}"
        document = document.model_copy(update={key: getattr(document, key).model_copy(update=endpoint)})
    return look(document, own, existing, secret)


def secret(reference: str) -> str:
    if reference not in SECRETS:
        raise Permanent("secret_missing", f"{reference} is not set", hint=f"set {reference}")
    return SECRETS[reference]


def only(seen: Look, words: str) -> Finding:
    """Return the one finding whose message holds `words`."""
    found = [finding for finding in seen.findings if words in finding.message]
    assert len(found) == 1, seen.findings
    return found[0]


def serious(seen: Look) -> list[Finding]:
    return [finding for finding in seen.findings if finding.severity != "note"]


@contextlib.contextmanager
def set_to(server: MySQLServer, name: str, value: str) -> Iterator[None]:
    before = server.scalar(f"SELECT @@GLOBAL.{name}")
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute(f"SET GLOBAL {name} = {value}")
        yield
        cursor.execute(f"SET GLOBAL {name} = %s", (before,))


def mend(server: MySQLServer, finding: Finding) -> None:
    """Run the hint as it stands."""
    server.execute("SET SESSION sql_log_bin = 0", *(word.strip() for word in finding.hint.split(";") if word.strip()))


def login(user: str, password: str) -> dict[str, str]:
    return {"user": user, "password": password}


def test_two_good_servers_have_nothing_that_must_be_mended(sites: Sites) -> None:
    """Both gateways see both servers, who holds data, and nothing to complain about."""
    for own in ("a", "b"):
        seen = examined(sites, own)
        assert serious(seen) == []
        assert seen.empty == {"a": False, "b": True}
        assert seen.servers == {side: sites.server(side) for side in ("a", "b")}


@pytest.mark.parametrize(
    ("name", "value", "words", "severity"),
    [
        ("binlog_row_image", "MINIMAL", "binlog_row_image is MINIMAL", "error"),
        ("binlog_format", "STATEMENT", "binlog_format is STATEMENT", "error"),
        ("binlog_checksum", "NONE", "binlog_checksum is NONE", "error"),
        ("binlog_expire_logs_seconds", "3600", "binary logs go after 3600 s", "warning"),
        ("sync_binlog", "0", "sync_binlog = 0", "warning"),
        ("init_replica", "'SET @a = 1'", "init_replica is set", "error"),
        ("replica_parallel_workers", "1", "one transaction at a time", "warning"),
    ],
)
def test_a_setting_that_can_be_changed_live_is_found_and_mended_by_its_hint(
    sites: Sites, name: str, value: str, words: str, severity: str
) -> None:
    """The finding names the place in the declaration; its SQL takes it away."""
    server = sites.servers["b"]
    with set_to(server, name, value):
        finding = only(examined(sites), words)
        assert (finding.severity, finding.side, finding.field) == (severity, "b", "site_b.host")
        assert finding.hint
        mend(server, finding)
        assert serious(examined(sites)) == []
    server.execute(f"RESET PERSIST IF EXISTS {name}")


def test_packets_that_are_smaller_at_the_target_are_found(sites: Sites) -> None:
    """A target that takes smaller packets than the source is told, with the exact statement."""
    with set_to(sites.servers["b"], "max_allowed_packet", "16777216"):
        finding = only(examined(sites), "max_allowed_packet is 16777216")
        assert finding.hint == "SET PERSIST max_allowed_packet = 1073741824;"


def test_a_missing_privilege_is_named_with_the_grant_that_gives_it(sites: Sites) -> None:
    """Both accounts are checked, each by the gateway that uses it; the GRANT is exact and mends it."""
    for side, user, right, own in (
        ("a", "farshore_tokyo", "CONNECTION_ADMIN", "a"),
        ("a", "farshore_tokyo_repl", "BACKUP_ADMIN", "b"),
    ):
        server = sites.servers["a" if side == "a" else "b"]
        server.execute("SET SESSION sql_log_bin = 0", f"REVOKE {right} ON *.* FROM {user}@'%'")
        finding = only(examined(sites, "a" if own == "a" else "b"), right)
        assert (finding.code, finding.severity, finding.side) == ("missing_privilege", "error", "a")
        assert finding.hint == f"GRANT {right} ON *.* TO '{user}'@'%';"
        mend(server, finding)
        assert serious(examined(sites, "a" if own == "a" else "b")) == []


def test_tables_that_cannot_be_protected_or_apply_slowly_are_named(sites: Sites) -> None:
    """Another engine is an error, a table without a key a warning; each names its tables."""
    server = sites.servers["a"]
    server.execute("CREATE TABLE shop.old (id INT PRIMARY KEY) ENGINE = MyISAM", "CREATE TABLE shop.heap (a INT)")
    assert only(examined(sites), "shop.old (MyISAM)").severity == "error"
    assert only(examined(sites), "shop.heap").code == "no_primary_key"
    server.execute("DROP TABLE shop.old", "DROP TABLE shop.heap")


def test_other_replication_of_the_server_is_refused(sites: Sites) -> None:
    """A foreign channel and a filter each refuse the server: a pair is one whole server (R1)."""
    server = sites.servers["b"]
    server.execute(
        "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'elsewhere.example', SOURCE_AUTO_POSITION = 1 FOR CHANNEL 'theirs'",
        "CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (scratch) FOR CHANNEL 'theirs'",
    )
    assert only(examined(sites, "b"), "theirs from elsewhere.example").severity == "error"
    assert only(examined(sites, "b"), "scratch").severity == "error"
    server.execute("RESET REPLICA ALL FOR CHANNEL 'theirs'")


def test_undecided_xa_transactions_are_told(sites: Sites) -> None:
    """What a seed and a switchover would wait for is known beforehand."""
    server = sites.servers["a"]
    server.execute("XA START 'x'", "INSERT INTO shop.rows VALUES ('in doubt')", "XA END 'x'", "XA PREPARE 'x'")
    assert only(examined(sites), "prepared and undecided").code == "prepared_xa"
    server.execute("XA ROLLBACK 'x'")


def test_what_only_a_restart_changes_is_found(sites: Sites) -> None:
    """Binary log and GTIDs off, forgotten persisted settings, no relay log recovery, updates logged twice."""
    server = sites.servers["b"]
    server.stop()
    server.start(
        "skip_log_bin", "gtid_mode=OFF", "enforce_gtid_consistency=OFF", "persisted_globals_load=OFF",
        "relay_log_recovery=OFF", "performance_schema=OFF",
    )  # fmt: skip
    seen = examined(sites)
    for words, severity in (
        ("the binary log is off", "error"),
        ("gtid_mode is OFF", "error"),
        ("persisted_globals_load is OFF", "error"),
        ("performance_schema is OFF", "error"),
        ("relay_log_recovery is OFF", "warning"),
    ):
        assert only(seen, words).severity == severity
    assert "SET PERSIST gtid_mode = ON_PERMISSIVE" in only(seen, "gtid_mode is OFF").hint
    server.stop()
    server.start("log_replica_updates=ON", "binlog_ignore_db=scratch")
    seen = examined(sites)
    assert only(seen, "several times slower").hint.startswith("write log_replica_updates=OFF")
    assert only(seen, "binlog_ignore_db=scratch").severity == "error"
    server.stop()
    server.start()
    assert serious(examined(sites)) == []


@pytest.mark.parametrize(
    ("endpoint", "code", "field"),
    [
        ({"host": "no-such-host.invalid"}, "unknown_host", "site_b.host"),
        ({"port": 1}, "unreachable", "site_b.host"),
        (
            {"replication": {"user": "farshore_osaka_repl", "password": "env:WRONG"}},
            "access_denied",
            "site_b.replication",
        ),
        ({"replication": {"user": "nobody", "password": "env:WRONG"}}, "access_denied", "site_b.replication"),
        ({"replication": {"user": "nobody", "password": "env:ABSENT"}}, "secret_missing", None),
        ({"tls": {"mode": "verify_ca", "ca_file": "/no/such/file"}}, "tls_mismatch", "site_b.tls.ca_file"),
    ],
    ids=["host", "port", "password", "user", "secret", "ca file"],
)
def test_an_endpoint_that_cannot_be_looked_at_says_why_and_the_other_is_still_seen(
    sites: Sites, monkeypatch: pytest.MonkeyPatch, endpoint: dict[str, Any], code: str, field: str | None
) -> None:
    """Each reason has its own code, its field and a hint without any secret; nothing else is hidden by it."""
    monkeypatch.setitem(SECRETS, "env:WRONG", "wrong-password")
    raw = sites.document.model_dump()
    raw["site_b"].update(endpoint)
    seen = look(MySQLPair.model_validate(raw), "a", False, secret)
    (finding,) = [each for each in seen.findings if each.severity == "error"]
    assert (finding.code, finding.side, finding.field) == (code, "b", field)
    assert "wrong-password" not in finding.message + finding.hint
    assert seen.servers == {"a": sites.server("a")}


def test_tls_is_verified_as_declared(sites: Sites) -> None:
    """The server's own CA satisfies verify_ca; another one, and a name that is not in the certificate, do not."""
    right, wrong = sites.servers["b"].ca_file, sites.servers["a"].ca_file
    document = sites.document.model_dump()

    def seen(mode: str, ca_file: object) -> Look:
        document["site_b"]["tls"] = {"mode": mode, "ca_file": str(ca_file)}
        return look(MySQLPair.model_validate(document), "a", False, secret)

    assert serious(seen("verify_ca", right)) == []
    for mode, ca_file in (("verify_ca", wrong), ("verify_identity", right)):
        (finding,) = serious(seen(mode, ca_file))
        assert (finding.code, finding.field) == ("tls_mismatch", "site_b.tls")


def test_a_server_without_tls_is_refused_unless_it_is_declared_so(sites: Sites) -> None:
    """`required` is never weakened by the server; `disabled` works without."""
    server = sites.servers["b"]
    server.stop()
    server.start("tls_version=")
    (finding,) = serious(examined(sites))
    assert finding.code == "tls_mismatch"
    document = sites.document.model_dump()
    document["site_b"]["tls"] = {"mode": "disabled"}
    assert serious(look(MySQLPair.model_validate(document), "a", False, secret)) == []
    server.stop()
    server.start()


def test_one_server_under_two_names_is_found_by_its_identity(sites: Sites) -> None:
    """The same server through another host name is the same server (server_uuid)."""
    from farshore_agent.mysql.accounts import AccountKind

    server = sites.servers["a"]
    with server.connect() as session, session.cursor() as cursor:
        cursor.execute("SET SESSION sql_log_bin = 0")
        statements = creation_statements(
            AccountKind.REPLICATION, "farshore_osaka_repl", "%", password=SECRETS["env:OSAKA_REPLICATION"]
        )
        for statement in statements:
            cursor.execute(statement)
        seen = examined(sites, host="localhost", port=server.port)
        cursor.execute("DROP USER farshore_osaka_repl@'%'")
    finding = only(seen, "both lead to the server")
    assert (finding.code, finding.severity) == ("same_server", "error")


def test_a_target_that_says_it_is_the_active_side_turns_the_direction_around(sites: Sites) -> None:
    """A role marker newer than the source's refuses the direction and names the way to declare it (R8)."""
    server = sites.servers["b"]
    server.execute(
        "SET SESSION sql_log_bin = 0", "CREATE DATABASE farshore",
        "CREATE TABLE farshore.role_marker (pair VARCHAR(63), site VARCHAR(63), active_since_epoch BIGINT)",
        "INSERT INTO farshore.role_marker VALUES ('orders', 'osaka', 6)",
    )  # fmt: skip
    finding = only(examined(sites), "since epoch 6")
    assert finding.code == "wrong_direction"
    assert "primary_site: osaka" in finding.hint
    server.execute("SET SESSION sql_log_bin = 0", "DROP DATABASE farshore")


@pytest.fixture(scope="module")
def portraits(sites: Sites) -> dict[Side, Portrait]:
    """Real portraits, to be changed where a real server cannot be."""
    found: dict[Side, Portrait] = {}
    for side in ("a", "b"):
        with dial(address(sites.document, side, "admin", secret)) as session:
            found[side] = paint(session, "orders")
    return found


def with_variables(portrait: Portrait, **variables: str) -> Portrait:
    return replace(portrait, variables={**portrait.variables, **variables})


def test_versions_are_judged_for_each_server_and_for_both_ways(sites: Sites, portraits: dict[Side, Portrait]) -> None:
    """Untested series are refused unless declared; an older target is an error, a newer one has no way back (R2)."""
    old = with_variables(portraits["b"], version="8.4.3")
    document = sites.document
    assert [each.code for each in rules.of_server(old, document) if each.severity == "error"] == [
        "unsupported_server_version"
    ]
    allowed = document.model_copy(update={"allow_unverified_version": True})
    assert [each.severity for each in rules.of_server(old, allowed)] == ["warning"]
    ancient = with_variables(portraits["b"], version="5.7.44")
    assert [each.severity for each in rules.of_server(ancient, allowed)] == ["error"]
    there = {each.code: each.severity for each in pair_rules.of_pair(portraits["a"], old, document)}
    back = {each.code: each.severity for each in pair_rules.of_pair(old, portraits["a"], document)}
    assert (there["version_mismatch"], back["version_mismatch"]) == ("error", "warning")


def test_what_cannot_be_provoked_on_one_machine_is_judged_from_portraits(
    sites: Sites, portraits: dict[Side, Portrait]
) -> None:
    """Clocks, table names' case, groups, collations, plugins, encryption without a keyring, uninstrumented servers."""
    a, b, document = portraits["a"], portraits["b"], sites.document
    cases: list[tuple[Portrait, Portrait, str, str]] = [
        (a, replace(b, clock_offset_seconds=b.clock_offset_seconds + 4), "clock_skew", "warning"),
        (a, with_variables(b, lower_case_table_names="1"), "unsuitable_server", "error"),
        (a, replace(b, collations=frozenset({"binary"})), "unsuitable_server", "error"),
        (replace(a, components=frozenset({"file://component_x"})), b, "missing_on_target", "warning"),
        (replace(a, account_plugins=frozenset({"ldap"})), b, "missing_on_target", "warning"),
        (replace(a, encrypted_tables=3), b, "missing_on_target", "warning"),
        (a, replace(b, role=Marker("orders", "osaka", 2)), "wrong_direction", "error"),
    ]
    for source, target, code, severity in cases:
        found = {(each.code, each.severity) for each in pair_rules.of_pair(source, target, document)}
        assert (code, severity) in found
    alone = {
        (each.code, each.severity) for each in rules.of_server(replace(b, in_group=True, instrumented=False), document)
    }
    assert alone == {("unsuitable_server", "error"), ("not_instrumented", "note")}


def test_one_name_with_two_secrets_on_two_sites_is_refused(sites: Sites, portraits: dict[Side, Portrait]) -> None:
    """Accounts replicate, so a name that means two accounts cannot work (R6)."""
    raw = sites.document.model_dump()
    raw["site_b"]["replication"] = {"user": "farshore_tokyo", "password": "env:OTHER"}
    found = [
        each
        for each in pair_rules.of_pair(portraits["a"], portraits["b"], MySQLPair.model_validate(raw))
        if each.severity == "error"
    ]
    assert [each.field for each in found] == ["site_b.replication.user"]
