"""The application: every route, one way to refuse, nothing without a token but what says so."""

from fastapi import FastAPI

from farshore.api import accounts, agents, errors, events, operations, pairs, plans, probes, service, sites
from farshore.api.limits import BodyLimit
from farshore.api.ports import Services
from farshore_schema import __version__

_DESCRIPTION = """
Disaster recovery you declare. Every error is `{"error": {code, message, hint, field, current}}`; `hint` is the next
command to run, `current` the present truth of a conflict. Bearer tokens have the roles viewer < operator < admin.
"""


def create_app(services: Services) -> FastAPI:
    """Return the API over these services."""
    app = FastAPI(
        title="Farshore",
        version=__version__,
        description=_DESCRIPTION,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    app.state.streams = 0
    errors.install(app)
    app.add_middleware(BodyLimit, bytes_max=services.settings.body_bytes_max)
    for part in (sites, pairs, operations, plans, events, agents, accounts, probes, service):
        app.include_router(part.router)
    app.include_router(pairs.roles)
    app.include_router(agents.sockets)
    return app
