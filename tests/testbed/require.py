"""One rule for what a test needs and cannot have: skipped with its reason on a laptop, a failure in CI."""

from __future__ import annotations

import os

import pytest


def in_ci() -> bool:
    """Whether this run must not skip anything (`CI=true`)."""
    return os.environ.get("CI", "").lower() in ("true", "1", "yes")


def require(condition: bool, reason: str) -> None:
    """Go on when `condition` holds; else skip the test with `reason`, or fail it when CI=true."""
    if condition:
        return
    if in_ci():
        pytest.fail(f"CI must have what this test needs: {reason}", pytrace=False)
    pytest.skip(reason)


def require_root() -> None:
    """Require the rights of root."""
    require(os.geteuid() == 0, "needs root")
