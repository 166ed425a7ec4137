"""What to do next for one pair: facts in, one step out; pure, and free of documents, time and transport (R25).

`plan` is the one question the loop asks on every visit. `why_not` answers whether an operation could be accepted now,
`progress` where an open one stands, `gap_consent` whether a declared `on_gap: reseed` calls for a new copy, and
`REASONS` what every wait and refusal means. The protocol behind it is told in docs/protocol.md, and every interleaving
of small worlds is explored over exactly this code (tests/simulation).
"""

from farshore.plan.allowed import gap_consent, why_not
from farshore.plan.decision import plan
from farshore.plan.policy import Policy
from farshore.plan.progress import progress
from farshore.plan.reasons import REASONS, Reason, explain
from farshore.plan.view import Bound, operation_epoch

__all__ = [
    "REASONS",
    "Bound",
    "Policy",
    "Reason",
    "explain",
    "gap_consent",
    "operation_epoch",
    "plan",
    "progress",
    "why_not",
]
