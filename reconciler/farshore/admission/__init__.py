"""What a request does to the store: judged on the facts of the moment, committed in one guarded transaction.

A refused request changes nothing. Admission gives birth to operations and asks for their abort; the loop writes their
life and ends them with `ending`. It knows the store and the plan, no transport, no agents and no database.
"""

from farshore.admission.binding import bind_server
from farshore.admission.closing import burial, ending
from farshore.admission.desk import Decided, Desk, policy_of, preferred_side, site_of
from farshore.admission.dry_run import plan_pair
from farshore.admission.looks import NOT_LOOKED, Look, merged
from farshore.admission.pairs import put_pair
from farshore.admission.removal import delete_pair, is_failed_over
from farshore.admission.requests import abort_operation, find_operation, not_found, request_operation
from farshore.admission.sites import delete_site, put_site, site_view
from farshore.admission.views import pair_view, role_status, view_of

__all__ = [
    "NOT_LOOKED",
    "Decided",
    "Desk",
    "Look",
    "abort_operation",
    "bind_server",
    "burial",
    "delete_pair",
    "delete_site",
    "ending",
    "find_operation",
    "is_failed_over",
    "merged",
    "not_found",
    "pair_view",
    "plan_pair",
    "policy_of",
    "preferred_side",
    "put_pair",
    "put_site",
    "request_operation",
    "role_status",
    "site_of",
    "site_view",
    "view_of",
]
