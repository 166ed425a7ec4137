"""The promises of the repository's set-up: every dependency has its reason, is locked, and every verb is documented."""

from __future__ import annotations

import re
import subprocess
import tomllib

from tests.testbed.places import CHECKOUT


def dependencies() -> set[str]:
    """Return the names in pyproject.toml, in lower case, without the project itself."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        wanted += extra
    return {re.split(r"[\[<>=~! ;]", each)[0].lower() for each in wanted} - {"farshore"}


def test_every_dependency_has_one_line_of_reason_and_a_locked_version() -> None:
    """docs/dependencies.md explains, and requirements/dev.txt locks, what pyproject.toml asks for: no more, no less."""
    page = (CHECKOUT / "docs/dependencies.md").read_text().split("## Programs")[0]
    lines = re.findall(r"^- ((?:`[\w.-]+`(?:, )?)+): \S.*", page, flags=re.MULTILINE)
    explained = {name.lower() for line in lines for name in re.findall(r"`([\w.-]+)`", line)}
    assert explained == dependencies() | {"editables"}
    locked = set(re.findall(r"^([\w.-]+)==", (CHECKOUT / "requirements/dev.txt").read_text(), flags=re.MULTILINE))
    assert dependencies() <= {name.lower() for name in locked}


def test_the_lock_names_no_place_to_download_from() -> None:
    """The machine's own configuration says where packages come from; the repository does not."""
    text = (CHECKOUT / "requirements/dev.txt").read_text()
    assert not re.search(r"https?://|--index|--find-links", text)


def test_make_help_shows_every_verb() -> None:
    """`make help` lists each verb that can be called, with what it does."""
    makefile = (CHECKOUT / "Makefile").read_text()
    declared = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert declared is not None
    shown = subprocess.run(["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=True)
    assert re.findall(r"^make (\w+)\s+\S", shown.stdout, flags=re.MULTILINE) == declared.group(1).split()


def test_ci_runs_exactly_make_test() -> None:
    """CI and a developer run the same command; CI only adds that nothing may be skipped."""
    lines = (CHECKOUT / ".ci/run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["export CI=true", "exec make test"]
