"""Documents whose text does not tell all: how they are put together again."""

from __future__ import annotations

import pytest

from farshore_agent.mysql.seed import sql
from farshore_agent.mysql.seed.typed_json import Document, also, document_expression


def made(text: str, *, own: str = "OBJECT", members: str = "", items: str = "") -> tuple[str, int]:
    """The expression for a document; types are given as the server finds them, separated by blanks."""
    return document_expression(
        Document(
            text=text,
            own=own,
            members={str(number): kind for number, kind in enumerate(members.split(), start=1)},
            items={str(number): kind for number, kind in enumerate(items.split(), start=1)},
        )
    )


def test_values_are_set_by_path_in_the_order_in_which_the_server_finds_them() -> None:
    """Members of an object come before those of what is inside it; the order was read off a real server."""
    text = '{"a": {"b": [1, "2020-01-01", {"q": 2.50}], "z": 1.5}, "c": "s", "bb": [3, [4.0]]}'
    expression, lost = made(
        text,
        members="OBJECT STRING ARRAY ARRAY DECIMAL DECIMAL",
        items="INTEGER DATE OBJECT INTEGER ARRAY DECIMAL",
    )
    assert lost == 0
    changes = (
        ('$."a"."z"', "CAST('1.5' AS DECIMAL(2, 1))"),
        ('$."a"."b"[2]."q"', "CAST('2.50' AS DECIMAL(3, 2))"),
        ('$."a"."b"[1]', "CAST('2020-01-01' AS DATE)"),
        ('$."bb"[1][0]', "CAST('4.0' AS DECIMAL(2, 1))"),
    )
    told = ", ".join(f"{sql.text(path)}, {value}" for path, value in changes)
    assert expression == f"JSON_SET(CAST({sql.text(text)} AS JSON), {told})"


@pytest.mark.parametrize(
    ("text", "kind", "typed"),
    [
        ("12.50", "DECIMAL", "CAST(CAST('12.50' AS DECIMAL(4, 2)) AS JSON)"),
        ("-0.001", "DECIMAL", "CAST(CAST('-0.001' AS DECIMAL(3, 3)) AS JSON)"),
        ("0", "DECIMAL", "CAST(CAST('0' AS DECIMAL(1, 0)) AS JSON)"),
        ('"10:00:00.500000"', "TIME", "CAST(CAST('10:00:00.500000' AS TIME(6)) AS JSON)"),
        ('"2020-01-01 00:00:00.000000"', "DATETIME", "CAST(CAST('2020-01-01 00:00:00.000000' AS DATETIME(6)) AS JSON)"),
        ('"base64:type15:/wA="', "BLOB", "CAST(x'ff00' AS JSON)"),
    ],
)
def test_a_document_may_be_one_value(text: str, kind: str, typed: str) -> None:
    """The whole document is of an odd type."""
    assert made(text, own=kind) == (typed, 0)


@pytest.mark.parametrize(
    ("text", "kind"),
    [('"base64:type252:eA=="', "BLOB"), ('"base64:type16:AAU="', "BIT"), ('"base64:type15:%%"', "BLOB")],
)
def test_what_no_expression_makes_is_counted_as_lost(text: str, kind: str) -> None:
    """The text is kept and the loss is told."""
    assert made(text, own=kind) == (f"CAST({sql.text(text)} AS JSON)", 1)
    assert made(f"[{text}]", own="ARRAY", items=kind)[1] == 1


def test_documents_without_odd_values_are_left_as_text() -> None:
    """In a row with two documents only one may be odd."""
    text = '{"a": 1.5}'
    assert made(text, members="DOUBLE") == (f"CAST({sql.text(text)} AS JSON)", 0)


def test_conditions_are_joined() -> None:
    """With and without one before."""
    assert also("", "x = 1") == " WHERE x = 1"
    assert also(" WHERE a > 1", "x = 1") == " WHERE a > 1 AND x = 1"
