"""Pairs of real servers that the tests of one module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.mysql.sites import TABLE, Pair, Sites
from tests.testbed.mysql_install import MySQLInstallation


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Sites]:
    """Two servers, the first with a little data; nothing is protected."""
    made = Sites(tmp_path_factory.mktemp("sites"))
    made.servers["a"].execute(f"INSERT INTO {TABLE} VALUES ('first')")
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(sites: Sites) -> Pair:
    """The same, protected and following. Tests leave it so, whichever side is active then."""
    made = Pair(sites)
    made.protect()
    return made
