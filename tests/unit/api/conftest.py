"""Fixtures of the admission and API tests."""

from __future__ import annotations

import pytest

from tests.unit.api.world import World


@pytest.fixture
def world() -> World:
    """Two sites and nothing else."""
    return World()
