"""Which way a column travels; that it arrives is proved on real servers."""

from __future__ import annotations

import re

import pytest

from farshore_agent.mysql.seed.rows import ESCAPE, ROW_START, Column, RowFormat


def column(data_type: str, *, character_set: str = "", nullable: bool = True, column_type: str = "") -> Column:
    """A column of some type."""
    return Column(
        name="c",
        data_type=data_type,
        character_set=character_set,
        nullable=nullable,
        column_type=column_type or data_type,
    )


def of(*columns: Column) -> RowFormat:
    """The format of a table with these columns."""
    return RowFormat.of("s", "t", columns, primary_key=True)


def test_the_beginning_of_a_row_cannot_be_mistaken() -> None:
    """It has no border (it never overlaps itself) and cannot lie in a header, which has zeros where it is long."""
    assert not any(ROW_START.endswith(ROW_START[:size]) for size in range(1, len(ROW_START)))
    assert 0 not in ROW_START
    assert len(ROW_START) > 8, "a header with its string's length has at most eight bytes between two zeros"
    assert ESCAPE.isascii()


@pytest.mark.parametrize(
    ("columns", "style", "fixed"),
    [
        ([column("int")], "escape", True),
        ([column("varchar", character_set="utf8mb4")], "escape", True),
        ([column("varchar", character_set="latin1")], "escape", False),
        ([column("varbinary")], "escape", False),
        ([column("blob")], "escape", False),
        ([column("bit")], "escape", False),
        ([column("mediumblob")], "token", False),
        ([column("longtext", character_set="utf8mb4")], "token", False),
        ([column("json")], "token", False),
        ([column("int"), column("geometry")], "token", False),
        ([column("enum", character_set="utf16", column_type="enum('ё')")], "escape", True),
    ],
)
def test_separators_suit_the_values(columns: list[Column], style: str, fixed: bool) -> None:
    """0xff and 0xfe separate only what cannot hold them; long values are never searched by REPLACE."""
    layout = of(*columns)
    assert layout.style == style
    assert ((layout.field_end, layout.row_end) == (b"\xff", b"\xfe")) == fixed
    if style == "token":
        assert "REPLACE" not in layout.select()
        assert "ESCAPED BY ''" in layout.load()


@pytest.mark.parametrize(
    ("labels", "character_set", "by_number"),
    [
        ("enum('a','b')", "utf8mb4", False),
        ("enum('1','2')", "latin1", False),
        ("enum('','a')", "utf8mb4", True),
        ("set('it''s')", "utf8mb4", True),
        ("enum('ё')", "utf8mb4", True),
        ("enum('a')", "utf16", True),
        (r"enum('a\\b')", "utf8mb4", True),
    ],
)
def test_labels_that_could_be_mistaken_travel_as_numbers(labels: str, character_set: str, by_number: bool) -> None:
    """A label is text only where text tells labels apart."""
    each = column(labels.partition("(")[0], character_set=character_set, column_type=labels)
    assert each.by_number == by_number
    assert ("AS UNSIGNED" in of(each).select()) == by_number


def test_generated_columns_do_not_travel_and_are_compared() -> None:
    """They are computed again by the target, and hashed on both sides."""
    generated = Column(name="g", data_type="int", character_set="", nullable=True, column_type="int", generated=True)
    layout = of(column("int"), generated)
    assert "`g`" not in layout.select()
    assert "`g`" not in layout.load()
    assert "`g`" in layout.digest()


def test_a_table_without_values_of_its_own_still_has_rows() -> None:
    """A row of nothing is a row."""
    layout = of()
    assert layout.select() == (f"SELECT CONCAT(x'{ROW_START.hex()}',x'fe') FROM `s`.`t` FORCE INDEX (PRIMARY)")
    assert "(@none)" in layout.load()


def test_values_joined_here_are_what_the_source_would_have_made() -> None:
    """For rows too long for one string."""
    layout = of(column("int"), column("longblob")).with_tokens()
    assert layout.join([b"5", None]) == ROW_START + b"5" + layout.field_end + layout.null + layout.row_end
    with pytest.raises(ValueError, match="escape"):
        of(column("int")).join([b"5"])


def test_separators_differ_from_table_to_table() -> None:
    """Random ones, so that no data can be made to hold them."""
    assert len({of(column("blob")).field_end for _ in range(20)}) == 20
    assert re.search(r"STARTING BY x'[0-9a-f]+' TERMINATED BY", of(column("blob")).load())
