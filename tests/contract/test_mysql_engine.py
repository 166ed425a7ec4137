"""The engine contract on real MySQL servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.engine_suite import FIRST_ROWS, EngineSuite
from tests.e2e.mysql.sites import Sites
from tests.testbed.mysql_install import MySQLInstallation

pytestmark = pytest.mark.mysql


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Sites]:
    """Two servers for the whole suite."""
    made = Sites(tmp_path_factory.mktemp("sites"))
    yield made
    made.close()


class TestMySQLEngine(EngineSuite):
    """Everything an engine promises, kept by MySQL 9.7."""

    @pytest.fixture
    def bench(self, sites: Sites) -> Sites:
        sites.reset()
        sites.fill(*FIRST_ROWS)
        return sites
