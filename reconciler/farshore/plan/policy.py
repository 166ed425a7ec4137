"""What a declaration says that decides role changes; nothing else of it is visible to the plan.

`primary_site` is deliberately absent (R11): it only ever causes an operation, it is never read here.
"""

from typing import NamedTuple

from farshore_schema.roles import Side


class Policy(NamedTuple):
    """The few declared choices the plan needs."""

    sync: bool = False  # the source waits for the standby's journal and blocks without it
    preferred: Side = "a"  # the side that becomes active in a new pair
    reseed_on_gap: bool = False  # `on_gap: reseed`: standing consent to copy anew when the stream cannot go on (R9)
