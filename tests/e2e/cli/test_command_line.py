"""The command line against a real `farshore serve`, as a user types it: what it prints, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.testbed.reconciler import Reconciler
from tests.unit.schema.test_validate import PAIR, SITE

SITES = SITE + "---\n" + SITE.replace("tokyo", "osaka")


@pytest.fixture(scope="module")
def farshore(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reconciler]:
    """A reconciler without agents."""
    with Reconciler(tmp_path_factory.mktemp("cli") / "home", arguments=("--no-embedded-agent",)) as running:
        yield running


def written(directory: Path, text: str) -> str:
    file = directory / "dr.yaml"
    file.write_text(text)
    return str(file)


def test_a_new_user_declares_and_sees_and_deletes(farshore: Reconciler, tmp_path: Path) -> None:
    """From nothing: validate, dry run, apply, status, describe, delete; each says what it did."""
    assert "no pairs are declared" in farshore.cli("status").stdout
    file = written(tmp_path, f"{SITES}---\n{PAIR}")
    assert "3 document(s) are valid" in farshore.cli("validate", file).stdout
    ahead = farshore.cli("apply", file, "--dry-run")
    assert "MySQLPair orders: create, after the sites of this file" in ahead.stdout, ahead.stderr
    assert farshore.api("GET", "/v1/sites/tokyo").status_code == 404
    applied = farshore.cli("apply", file)
    assert applied.returncode == 0, applied.stderr
    assert "MySQLPair orders: declared" in applied.stdout
    assert "nothing to do" in farshore.cli("apply", file, "--dry-run").stdout
    shown = farshore.cli("status")
    assert "orders" in shown.stdout
    described = farshore.cli("describe", "orders").stdout
    assert "db.tokyo.example:3306" in described
    assert "code never moves roles" in described
    assert farshore.cli_json("status")[0]["pair"] == "orders"
    assert "Type its name" in farshore.cli("delete", "orders", stdin="wrong\n").stdout
    assert farshore.api("GET", "/v1/pairs/orders").is_success
    assert farshore.cli("delete", "orders", "--yes").returncode == 0
    assert farshore.api("GET", "/v1/pairs/orders").status_code == 404


def test_a_wrong_file_is_refused_with_line_and_field(farshore: Reconciler, tmp_path: Path) -> None:
    """Nothing of a file with a mistake is applied."""
    file = written(tmp_path, f"{SITE.replace('tokyo', 'kyoto')}---\n{PAIR.replace('name: orders', 'name: Orders')}")
    wrong = farshore.cli("validate", file)
    assert wrong.returncode == 2
    assert f"{file}:7: name:" in wrong.stdout
    assert farshore.cli("apply", file).returncode == 2
    assert farshore.api("GET", "/v1/sites/kyoto").status_code == 404


def test_errors_name_the_thing_and_the_next_command(farshore: Reconciler) -> None:
    """What is not there is said with its code, on standard error, and with --json as JSON."""
    missing = farshore.cli("describe", "nothing")
    assert missing.returncode == 4
    assert "error [not_found]" in missing.stderr
    assert "next:" in missing.stderr
    as_json = farshore.cli("describe", "nothing", "--json")
    assert json.loads(as_json.stderr)["error"]["code"] == "not_found"
    assert farshore.cli("frobnicate").returncode == 2


def test_tokens_are_shown_once_and_their_roles_hold(farshore: Reconciler) -> None:
    """A viewer sees and may not change; a revoked token is nothing; the list has no secrets."""
    made = farshore.cli_json("token", "create", "viewer", "--note", "dashboard")
    token = made["token"]
    assert farshore.api("GET", "/v1/pairs", token=token).is_success
    refused = farshore.api("PUT", "/v1/sites/kyoto", token=token, json={"kind": "Site", "name": "kyoto"})
    assert refused.status_code == 403
    listed = farshore.cli("token", "list").stdout
    assert "dashboard" in listed
    assert token not in listed
    identifier = next(row["id"] for row in farshore.cli_json("token", "list") if row["note"] == "dashboard")
    assert farshore.cli("token", "revoke", identifier).returncode == 0
    assert farshore.api("GET", "/v1/pairs", token=token).status_code == 401


def test_a_second_reconciler_on_the_directory_is_refused(farshore: Reconciler) -> None:
    """It says who holds the directory and does not disturb the first one."""
    second = farshore.cli("serve", "--directory", str(farshore.directory), "--port", "0")
    assert second.returncode == 9
    assert "directory_in_use" in second.stderr
    assert farshore.api("GET", "/healthz").is_success


def test_events_and_exit_codes_are_for_programs_too(farshore: Reconciler, tmp_path: Path) -> None:
    """`exit-codes --json` lists the table; every code that the documentation names is there."""
    rows = farshore.cli_json("exit-codes")
    page = Path("docs/errors.md").read_text()
    assert all(f"`{row['code']}`" in page for row in rows)


def test_without_a_reconciler_it_says_what_to_start(tmp_path: Path) -> None:
    """A connection that is refused is an answer with the next command, and its own exit code."""
    stranger = Reconciler(tmp_path / "none")
    stranger.port = 1
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "admin.token").write_text("fsa_nothing\n")
    done = stranger.cli("status")
    assert done.returncode == 9
    assert "farshore serve" in done.stderr


@pytest.mark.parametrize("command", ["status", "apply", "switchover", "rebind", "serve", "doctor"])
def test_help_has_an_example(farshore: Reconciler, command: str) -> None:
    """Every verb that people look up shows how it is used."""
    done = farshore.cli(command, "--help")
    assert done.returncode == 0
    assert "Example: farshore" in done.stdout
