"""Reading documents: every mistake has its line and its field, and a secret in the wrong place is not repeated."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farshore_schema.documents import MySQLPair, Site
from farshore_schema.validate import Parsed, read_documents

SITE = "kind: Site\nversion: farshore/v1\nname: tokyo\n"
PAIR = """kind: MySQLPair
version: farshore/v1
name: orders
site_a:
  site: tokyo
  host: db.tokyo.example
  admin: {user: farshore_tokyo, password: "env:A"}
  replication: {user: farshore_tokyo_repl, password: "env:B"}
site_b:
  site: osaka
  host: db.osaka.example
  admin: {user: farshore_osaka, password: "file:/etc/c"}
  replication: {user: farshore_osaka_repl, password: "file:/etc/d"}
"""


def only(parsed: Parsed) -> tuple[int, str, str]:
    assert len(parsed.failures) == 1, parsed.failures
    return parsed.failures[0]


def test_yaml_and_json_declare_the_same() -> None:
    """Several documents in one text; JSON is read as well, with the same result."""
    parsed = read_documents(f"{SITE}---\n{PAIR}")
    assert parsed.failures == ()
    assert [type(each) for each in parsed.documents] == [Site, MySQLPair]
    again = read_documents(json.dumps(parsed.documents[1].model_dump(mode="json")))
    assert again.documents == parsed.documents[1:]


@pytest.mark.parametrize(
    ("old", "new", "line", "field", "part"),
    [
        ("name: orders", "name: orders\nretention: 3", 4, "retention", "not a field"),
        ("version: farshore/v1", "version: farshore/v2", 2, "version", "farshore/v1"),
        ("version: farshore/v1\n", "", 1, "version", "missing"),
        ("kind: MySQLPair", "kind: OraclePair", 1, "kind", "must be one of"),
        ("name: orders", "name: orders\ndrain_timeout: soon", 4, "drain_timeout", "for example"),
        ("  host: db.osaka.example\n", "", 9, "site_b.host", "missing"),
        ('password: "env:A"', "password: hunter2", 7, "site_a.admin.password", "reference"),
        ("site: osaka", "site: tokyo", 1, "", "two sites"),
        ("name: orders", "name: orders\nname: other", 4, "", "twice"),
        ("user: farshore_osaka,", "user: farshore_tokyo,", 1, "", "different names"),
    ],
)
def test_every_mistake_has_its_line_and_field(old: str, new: str, line: int, field: str, part: str) -> None:
    """What the user has to mend is named, and a secret in place of a reference is not printed back."""
    assert old in PAIR
    found = only(read_documents(PAIR.replace(old, new, 1)))
    assert (found[0], found[1]) == (line, field)
    assert part in found[2]
    assert "hunter2" not in found[2]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n---\n"])
def test_a_text_without_a_document_is_a_mistake(text: str) -> None:
    """Applying nothing by accident is not a success."""
    assert "no document" in only(read_documents(text))[2]


def test_json_with_tabs_and_text_that_looks_like_a_date_are_read() -> None:
    """Editors indent JSON with tabs; a date in a description is text."""
    tabbed = json.dumps({"kind": "Site", "version": "farshore/v1", "name": "tokyo"}, indent="\t")
    assert read_documents(tabbed).failures == ()
    dated = read_documents(SITE + "description: 2026-01-31\n")
    assert dated.failures == ()
    assert dated.documents[0].description == "2026-01-31"


@pytest.mark.parametrize("text", ["[" * 20_000, "a: " + "{b: " * 5000 + "1" + "}" * 5000])
def test_a_text_nested_too_deeply_is_a_mistake(text: str) -> None:
    """A hostile file ends in a failure, not in a broken program."""
    assert "nested too deeply" in only(read_documents(text))[2]


@given(st.text(max_size=200))
def test_no_text_whatsoever_breaks_the_reader(text: str) -> None:
    """Input from outside ends in documents or in failures, never in an exception."""
    parsed = read_documents(text)
    assert parsed.documents or parsed.failures
