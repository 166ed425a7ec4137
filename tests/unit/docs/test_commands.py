"""What the pages and the product tell people to run exists: programs, commands, options, arguments, make targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.docs.commands import ROOT, mistake
from tests.unit.docs.prose import PAGES, Found, commands_of_page, commands_of_product

STORED = {"farshore mysql journal"}
"""Not for people: the mark of a journal's directory, kept as it was first written."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_of_a_page_would_be_accepted(page: Path) -> None:
    """Whoever copies a command from a page gets no usage error."""
    assert not wrong(list(commands_of_page(page)))


def test_every_command_in_a_message_of_the_product_would_be_accepted() -> None:
    """A hint is the next command; one that does not exist is worse than none."""
    told = [found for found in commands_of_product() if found.text not in STORED]
    assert len(told) > 60
    assert not wrong(told)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("farshore frobnicate", 'no command "frobnicate"'),
        ("farshore agents frobnicate", 'no command "frobnicate"'),
        ("farshore status --frobnicate", "--frobnicate"),
        ("farshore --frobnicate", "--frobnicate"),
        ("farshore doctor", "lacks pair"),
        ("farshore agents enrol", "lacks site"),
        ("farshore agents", "needs a command"),
        ("farshore doctor orders invoices", "no further argument: invoices"),
        ("farshore switchover orders --to", "--to"),
        ("farshore-agent status", 'no command "status"'),
        ("sudo FARSHORE_DIR=/srv farshore apply && farshore status", "lacks file"),
        ("make coffee", "no target coffee"),
        ("make simulate SUGAR=2", "no variable SUGAR"),
    ],
)
def test_a_wrong_command_is_seen(line: str, reason: str) -> None:
    """The judge itself: each kind of mistake is found."""
    assert reason in str(mistake(line))


def test_commands_are_found_wherever_they_stand(tmp_path: Path) -> None:
    """In a block, over two lines of it, in a line of text, and broken over two lines of text."""
    page = tmp_path / "page.md"
    page.write_text(
        "Run `farshore\nstatus` and `make help`, not `farshore`.\n```sh\n# farshore comment\n"
        "$ farshore apply dr.yaml # and\nfarshore switchover orders \\\n  --to osaka\n```\nThen `farshore-agent run`.\n"
    )
    assert {(found.line, found.text) for found in commands_of_page(page)} == {
        (1, "farshore status"),
        (2, "make help"),
        (5, "$ farshore apply dr.yaml # and"),
        (6, "farshore switchover orders --to osaka"),
        (9, "farshore-agent run"),
    }


def wrong(commands: list[Found]) -> str:
    """Return a line for every command that would be refused."""
    reasons = [(found, mistake(found.text)) for found in commands]
    return "\n".join(f"{found.where}: {found.text}: {reason}" for found, reason in reasons if reason)
