"""Routes of agents: who is there, enrolment, and the socket they speak through."""

from typing import Annotated

from fastapi import APIRouter, Body, WebSocket
from fastapi.responses import Response

from farshore.api import enrolment, examples
from farshore.api.access import Admin, Given, Viewer, agent_identity, name_of
from farshore.api.answers import Listed, answered
from farshore.api.errors import answer, documented
from farshore.api.params import SiteName
from farshore.api.ports import Services
from farshore.store import keys
from farshore.store.records import AgentRecord
from farshore_schema.access import AgentView, EnrolCode, EnrolRequest, Redeemed, RedeemRequest, Revoked
from farshore_schema.errors import Permanent

router = APIRouter(prefix="/v1/agents", tags=["agents"])
sockets = APIRouter()


@router.get("", response_model=Listed[AgentView], responses=documented())
async def list_agents(given: Given, _caller: Viewer) -> Response:
    """List the agents that are connected, and those that are enrolled and expected."""
    return answered(Listed[AgentView](items=agents(given)))


@router.post("/enrol", response_model=EnrolCode, responses=documented("unknown_site", "not_possible_now"))
async def enrol(
    request: Annotated[EnrolRequest, Body(openapi_examples=examples.ENROLMENTS)], given: Given, caller: Admin
) -> Response:
    """Make a one-time code, good for 15 minutes, with which an agent takes over a site."""
    seconds = given.settings.enrolment_seconds
    return answered(enrolment.enrol(given.desk, request.site, by=name_of(caller), good_for_seconds=seconds))


@router.post("/redeem", response_model=Redeemed, responses=documented())
@router.post("/credential", response_model=Redeemed, include_in_schema=False)
async def redeem(request: RedeemRequest, given: Given) -> Response:
    """Turn a one-time code into the agent's own credential, shown this once. The code is what authenticates."""
    return answered(enrolment.redeem(given.desk, request))


@router.delete("/{name}", response_model=Revoked, responses=documented("not_found"))
async def revoke(name: SiteName, given: Given, _caller: Admin) -> Response:
    """Take a site back from its enrolled agent."""
    return answered(Revoked(revoked=enrolment.revoke(given.desk, name)))


@sockets.websocket("/v1/agents/session")
@sockets.websocket("/v1/agent")
async def session(socket: WebSocket) -> None:
    """Serve an agent's socket; an unknown credential is answered 401 before the handshake."""
    given: Services = socket.app.state.services
    identity = agent_identity(given, socket)
    if identity is None:
        refusal = Permanent(
            "unauthenticated",
            "the agent's credential is not known here",
            hint="enrol it again: farshore agents enrol --site SITE",
        )
        await socket.send_denial_response(answer(refusal))
        return
    await given.agents.handle(socket, identity)


def agents(given: Services) -> tuple[AgentView, ...]:
    """Return every agent that is connected, then those that are enrolled and not connected."""
    live = given.agents.agents()
    shown = [
        AgentView(
            agent=each.agent,
            sites=tuple(sorted(each.sites)),
            embedded=each.embedded,
            connected=True,
            version=each.version,
            probe_ports=dict(each.probe_ports),
        )
        for each in live
    ]
    served = {site for each in live if not each.embedded for site in each.sites}
    for item in given.desk.records.store.list(keys.AGENTS).items:
        record = given.desk.records.parsed(item, AgentRecord).value
        if record.site not in served:
            shown.append(AgentView(agent=record.agent, sites=(record.site,)))
    return tuple(shown)
