"""Messages of the reconciler as they arrive: understood, or named as not understood; never skipped (I8)."""

import json
from typing import NamedTuple

from pydantic import ValidationError

from farshore_schema.messages import TO_AGENT, Assign, Command, Goodbye, Inspect, Unassign, Welcome
from farshore_schema.roles import SIDES, Side


class Unknown(NamedTuple):
    """A message of a newer release, or a broken one, with whatever tells who waits for its answer."""

    reason: str
    type: str = ""
    intent: str = ""
    pair: str = ""
    side: Side | None = None
    request: str = ""


def understand(text: str | bytes) -> Welcome | Assign | Unassign | Command | Inspect | Goodbye | Unknown:
    """Return the message, or what is known of one that this release does not understand."""
    try:
        return TO_AGENT.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        return _unknown(text, f"{first['msg']} ({where})" if where else first["msg"])


def _unknown(text: str | bytes, reason: str) -> Unknown:
    try:
        plain = json.loads(text)
    except ValueError:
        return Unknown(reason)
    if not isinstance(plain, dict):
        return Unknown(reason)
    side = plain.get("side")
    return Unknown(
        reason,
        type=_text(plain, "type"),
        intent=_text(plain, "intent"),
        pair=_text(plain, "pair"),
        side=side if side in SIDES else None,
        request=_text(plain, "request"),
    )


def _text(plain: dict[str, object], name: str) -> str:
    value = plain.get(name)
    return value if isinstance(value, str) else ""
