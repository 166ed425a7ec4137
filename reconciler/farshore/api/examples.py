"""Examples that OpenAPI shows; a test sends each of them to the API."""

from typing import Any, Final

from fastapi.openapi.models import Example


def _endpoint(site: str) -> dict[str, Any]:
    return {
        "site": site,
        "host": f"mysql.{site}.example",
        "admin": {"user": f"farshore_{site}", "password": f"env:{site.upper()}_ADMIN"},
        "replication": {"user": f"farshore_{site}_repl", "password": f"file:/etc/farshore/{site}.password"},
    }


ORDERS: Final[dict[str, Any]] = {
    "version": "farshore/v1",
    "kind": "MySQLPair",
    "name": "orders",
    "site_a": _endpoint("tokyo"),
    "site_b": _endpoint("osaka"),
    "primary_site": "tokyo",
}
SITES: Final[dict[str, Example]] = {
    "site": {
        "summary": "A site",
        "value": {"version": "farshore/v1", "kind": "Site", "name": "tokyo", "description": "the main machine room"},
    }
}
PAIRS: Final[dict[str, Example]] = {
    "new": {
        "summary": "Declare a pair",
        "value": {
            "document": ORDERS,
            "owner": {"organization": "acme", "project": "dr", "stack": "prod"},
            "create": True,
        },
    },
    "switchover": {
        "summary": "Move the active side, planned: change primary_site",
        "value": {
            "document": ORDERS | {"primary_site": "osaka"},
            "owner": {"organization": "acme", "project": "dr", "stack": "prod"},
            "if_epoch": 2,
            "reason": "maintenance in tokyo",
        },
    },
}
PLANS: Final[dict[str, Example]] = {"plan": {"summary": "What would this do?", "value": {"document": ORDERS}}}
OPERATIONS: Final[dict[str, Example]] = {
    "switchover": {
        "summary": "Planned switchover",
        "value": {"verb": "switchover", "to_site": "osaka", "if_epoch": 2, "reason": "maintenance in tokyo"},
    },
    "reprotect": {"summary": "Protect in the new direction, after a failover", "value": {"verb": "reprotect"}},
    "rebind": {
        "summary": "Follow the server that took the active one's place",
        "value": {"verb": "rebind", "if_epoch": 2, "reason": "tokyo failed over to its replica"},
    },
}
TOKENS: Final[dict[str, Example]] = {
    "viewer": {"summary": "For a dashboard", "value": {"role": "viewer", "note": "wallboard"}}
}
ENROLMENTS: Final[dict[str, Example]] = {"osaka": {"summary": "For a gateway at osaka", "value": {"site": "osaka"}}}
