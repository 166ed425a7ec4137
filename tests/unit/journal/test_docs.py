"""docs/journal.md says what the code does: its example runs, and its tables are complete."""

from __future__ import annotations

import re
from pathlib import Path

from farshore_agent.mysql.journal import client
from farshore_agent.mysql.journal.errors import RETRIED, StopCode

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "journal.md").read_text()


def test_the_example_runs() -> None:
    """With processes that only note what they were asked to do."""
    asked: list[object] = []

    class Noted:
        def __init__(self, config: client.JournalConfig) -> None:
            asked.append(config)

        def wait_contains(self, gtid_set: str, timeout: float) -> bool:
            asked.append((gtid_set, timeout))
            return True

    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    names = {name: getattr(client, name) for name in client.__all__}
    exec(found[1], {**names, "Path": Path, "ensure_receiver": Noted, "ensure_server": Noted})
    assert len(asked) == 3
    assert hasattr(client.ReceiverClient, "wait_contains")


def test_every_stop_code_is_explained() -> None:
    """The table lists each code once, and says of each whether it is tried again."""
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", PAGE, re.MULTILINE)
    assert [code for code, _ in rows] == list(dict.fromkeys(code for code, _ in rows))
    assert {code for code, _ in rows} == {code.value for code in StopCode}
    for code, again in rows:
        assert again.startswith("yes") == (StopCode(code) in RETRIED), code
