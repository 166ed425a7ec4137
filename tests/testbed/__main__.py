"""Install what the tests need ahead of them, where progress can be seen: `python -m tests.testbed [NAME...]`.

Names are `mysql`, `haproxy`, `pulumi`; without one, all of them. Each is quick when it is there already. What cannot
be had is said with its reason; that is an error only where nothing may be skipped (CI=true) or when it was named.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

from tests.testbed.haproxy import haproxy_program
from tests.testbed.mysql import prepare_template
from tests.testbed.places import TestBedError, say
from tests.testbed.pulumi_build import pulumi_installation
from tests.testbed.require import in_ci

PARTS: Mapping[str, Callable[[], object]] = {
    "mysql": prepare_template,
    "haproxy": haproxy_program,
    "pulumi": pulumi_installation,
}


def main(names: list[str]) -> int:
    """Install the named parts; the exit code is 1 when one is missing that must be there, 2 for an unknown name."""
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        say(f"unknown: {' '.join(unknown)}; there are {' '.join(PARTS)}")
        return 2
    missing = 0
    for name in names or PARTS:
        try:
            PARTS[name]()
        except TestBedError as error:
            missing += 1
            say(f"{name} cannot be had here, its tests will be left out: {error}")
    return 1 if missing and (in_ci() or names) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
