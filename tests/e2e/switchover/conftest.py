"""One protected pair for all tests of this folder that leave it protected."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import require_installed
from tests.e2e.switchover.rig import Rig
from tests.testbed.haproxy import haproxy_program
from tests.testbed.mysql_install import MySQLInstallation


@pytest.fixture(scope="package")
def shared_rig(tmp_path_factory: pytest.TempPathFactory, mysql_installed: MySQLInstallation) -> Iterator[Rig]:
    """A protected pair of two real servers with a reconciler, its agent, and HAProxy in front."""
    require_installed(haproxy_program)
    made = Rig(tmp_path_factory.mktemp("rig"))
    with made.stage:
        made.build()
        yield made


@pytest.fixture
def rig(shared_rig: Rig) -> Rig:
    """The same, whole and protected, whatever the test before it left."""
    shared_rig.heal()
    shared_rig.protected()
    return shared_rig
