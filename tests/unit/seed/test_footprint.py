"""What an unfinished seed made is remembered, and never more than that."""

from __future__ import annotations

from pathlib import Path

import pytest

from farshore_agent.mysql.seed.errors import SeedTransient
from farshore_agent.mysql.seed.footprint import (
    FILE_NAME,
    Footprint,
    read_footprint,
    remove_footprint,
    write_footprint,
)

MADE = Footprint(target_uuid="u-1", schemas=("shop", "ё`"), accounts=("'ann'@'%'",))


def test_it_comes_back(tmp_path: Path) -> None:
    """Written, read, written again, removed twice."""
    write_footprint(tmp_path / "new", MADE)
    assert read_footprint(tmp_path / "new", "u-1") == MADE
    write_footprint(tmp_path / "new", Footprint(target_uuid="u-1"))
    assert read_footprint(tmp_path / "new", "u-1").schemas == ()
    remove_footprint(tmp_path / "new")
    remove_footprint(tmp_path / "new")
    assert read_footprint(tmp_path / "new", "u-1") == Footprint(target_uuid="u-1")


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", '{"target_uuid": "u-1"}', '{"format": 2, "target_uuid": "u-1", "schemas": ["a"], "accounts": []}'],
)
def test_what_cannot_be_read_gives_no_right(tmp_path: Path, text: str) -> None:
    """A torn file, one of a newer format: nothing may be dropped because of it."""
    (tmp_path / FILE_NAME).write_text(text)
    assert read_footprint(tmp_path, "u-1") == Footprint(target_uuid="u-1")


def test_another_server_gets_no_right_from_it(tmp_path: Path) -> None:
    """The target was rebuilt, or is another one: what is there now is not ours."""
    write_footprint(tmp_path, MADE)
    assert read_footprint(tmp_path, "u-2") == Footprint(target_uuid="u-2")


def test_a_disk_that_refuses_is_said(tmp_path: Path) -> None:
    """Without a footprint nothing is written to the target."""
    (tmp_path / "file").write_text("")
    with pytest.raises(SeedTransient, match="cannot write"):
        write_footprint(tmp_path / "file", MADE)
