"""Grants as the server lists them, and what is missing in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from farshore_agent.mysql.accounts import (
    ADMIN,
    REPLICATION,
    RIGHTS,
    AccountKind,
    creation_statements,
    grant_statement,
    missing_in,
)

PAGE = Path(__file__).parents[2] / "docs" / "mysql-accounts.md"


def static(kind: AccountKind) -> str:
    """The static privileges of a kind, as one line of SHOW GRANTS."""
    return ", ".join(right.privilege for right in RIGHTS[kind] if "_" not in right.privilege)


def dynamic(kind: AccountKind) -> str:
    """The dynamic ones, as the next line of it."""
    return ",".join(sorted(right.privilege for right in RIGHTS[kind] if "_" in right.privilege))


@pytest.mark.parametrize("kind", list(AccountKind))
def test_what_the_page_gives_is_enough(kind: AccountKind) -> None:
    """The server lists static and dynamic privileges in two lines."""
    grants = [f"GRANT {static(kind)} ON *.* TO `a`@`%`", f"GRANT {dynamic(kind)} ON *.* TO `a`@`%`"]
    assert missing_in(grants, kind, user="a", host="%") == ()


@pytest.mark.parametrize("kind", list(AccountKind))
def test_all_privileges_are_the_static_ones(kind: AccountKind) -> None:
    """GRANT ALL is listed as ALL PRIVILEGES only for the static ones; dynamic ones stand beside it."""
    missing = missing_in(["GRANT ALL PRIVILEGES ON *.* TO `a`@`%` WITH GRANT OPTION"], kind, user="a", host="%")
    assert {each.privilege for each in missing} == {right.privilege for right in RIGHTS[kind] if "_" in right.privilege}


def test_what_is_missing_comes_with_its_grant() -> None:
    """The account's name is quoted; rights on single schemas, and those partly revoked, do not count."""
    grants = [
        f"GRANT {static(AccountKind.REPLICATION)} ON *.* TO `o'neil`@`10.%`",
        "GRANT BACKUP_ADMIN,FLUSH_TABLES ON *.* TO `o'neil`@`10.%`",
        "GRANT XA_RECOVER_ADMIN ON `shop`.* TO `o'neil`@`10.%`",
        "REVOKE SELECT ON `mysql`.* FROM `o'neil`@`10.%`",
        "GRANT `role`@`%` TO `o'neil`@`10.%`",
    ]
    missing = missing_in(grants, AccountKind.REPLICATION, user="o'neil", host="10.%")
    assert [(each.privilege, each.grant) for each in missing] == [
        ("SELECT", "GRANT SELECT ON *.* TO 'o''neil'@'10.%'"),
        ("XA_RECOVER_ADMIN", "GRANT XA_RECOVER_ADMIN ON *.* TO 'o''neil'@'10.%'"),
    ]
    assert all(each.step and each.why for each in missing)


def test_names_and_passwords_are_quoted() -> None:
    """Whatever is in them stays in them."""
    create, grant = creation_statements(AccountKind.ADMIN, "a'b", "%", password="p'\\q")
    assert create == "CREATE USER 'a''b'@'%' IDENTIFIED BY 'p''\\\\q'"
    assert grant.endswith(" ON *.* TO 'a''b'@'%'")


def test_replication_only_reads() -> None:
    """No privilege of it writes rows or settings; TRIGGER and EVENT are the price of reading their definitions (R4)."""
    held = {right.privilege for right in REPLICATION}
    assert not held & {"INSERT", "UPDATE", "DELETE", "DROP", "ALTER", "RELOAD", "SUPER", "SYSTEM_VARIABLES_ADMIN"}
    assert held - {right.privilege for right in ADMIN} == {"BACKUP_ADMIN", "FLUSH_TABLES", "REPLICATION SLAVE"}


@pytest.mark.parametrize("kind", list(AccountKind))
def test_the_page_says_exactly_this(kind: AccountKind) -> None:
    """docs/mysql-accounts.md shows the same GRANT and the reason of every right."""
    text = PAGE.read_text()
    user = "farshore_tokyo_admin" if kind is AccountKind.ADMIN else "farshore_tokyo_replication"
    assert grant_statement(RIGHTS[kind], user, "%") in " ".join(text.split())
    for right in RIGHTS[kind]:
        assert f"| `{right.privilege}` | {right.step} | {right.why} |" in text
