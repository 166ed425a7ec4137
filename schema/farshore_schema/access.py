"""Who may ask the API what: tokens, agents and their enrolment, as they travel."""

from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from farshore_schema.documents import Name
from farshore_schema.status import Value

Note = Annotated[str, Field(max_length=200)]


class Request(Value):
    """The body of a request: nothing unknown in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class TokenRequest(Request):
    """Ask for a token."""

    role: Literal["viewer", "operator", "admin"]
    note: Note = ""  # whose it is; names the caller in the audit trail


class TokenView(Value):
    """A token without its secret."""

    id: str
    role: Literal["viewer", "operator", "admin", "agent"]
    note: str = ""
    sites: tuple[str, ...] = ()  # of an agent
    created: str
    by: str = ""


class TokenMade(TokenView):
    """A new token, shown this once."""

    token: str


class EnrolRequest(Request):
    """Ask for a one-time code with which an agent takes over a site."""

    site: Name


class EnrolCode(Value):
    """A one-time code."""

    site: Name
    code: str
    expires: str  # RFC 3339, UTC


class RedeemRequest(Request):
    """An agent redeems its code."""

    code: Annotated[str, Field(min_length=1, max_length=100)]
    agent: Annotated[str, Field(min_length=1, max_length=200)] = "agent"  # how it is called, for people


class Redeemed(Value):
    """An agent's own credential, shown this once."""

    agent: str
    sites: tuple[str, ...]
    credential: str


class AgentView(Value):
    """An agent: connected, or enrolled and expected."""

    agent: str
    sites: tuple[str, ...]
    embedded: bool = False
    connected: bool = False
    version: str = ""
    probe_ports: dict[str, int] = Field(default_factory=dict)  # site -> port that answers /primary and /standby


class Revoked(Value):
    """What was made useless."""

    revoked: str
