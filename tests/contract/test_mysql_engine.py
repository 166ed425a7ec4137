"""The engine contract on real MySQL servers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.engine_suite import EngineSuite
from tests.e2e.mysql.sites import TABLE, Sites
from tests.testbed.mysql_install import MySQLInstallation

pytestmark = pytest.mark.mysql


class TestMySQLEngine(EngineSuite):
    """Everything an engine promises, kept by MySQL 9.7."""

    @pytest.fixture
    def bench(self, tmp_path: Path, mysql_installed: MySQLInstallation) -> Iterator[Sites]:
        sites = Sites(tmp_path)
        sites.servers["a"].execute(f"INSERT INTO {TABLE} VALUES " + ", ".join(f"('{row}')" for row in self.FIRST_ROWS))
        yield sites
        sites.close()
