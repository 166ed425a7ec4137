"""The description of the API: complete, true, and every example in it works."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.config import ProjectConfig, ProjectsConfig, SchemathesisConfig

from farshore.api import examples
from farshore_schema.errors import TABLE
from tests.unit.api.service import Service
from tests.unit.api.world import World

NOT_ASKED = [
    # A well-formed request may still be refused for what the store holds, and numbers in quotes are accepted.
    schemathesis.checks.positive_data_acceptance,
    schemathesis.checks.negative_data_rejection,
]
EXAMPLES_MAX = 12  # of each operation; a run takes well under a minute


def described() -> tuple[Service, dict[str, Any]]:
    """Return a service and its description."""
    service = Service(World(), inspect_seconds=0.1, wait_seconds_max=0.0)
    return service, service.app.openapi()


def test_every_route_is_described_with_its_answers_and_refusals() -> None:
    """Each operation has words, a typed answer where it has a body, and its refusals with examples."""
    _, description = described()
    for path, methods in description["paths"].items():
        for method, route in methods.items():
            name = f"{method} {path}"
            assert len(route["description"]) > 10, name
            assert route["tags"], name
            if path in ("/metrics", "/v1/events"):
                continue
            assert "schema" in route["responses"]["200"]["content"]["application/json"], name
            for status, response in route["responses"].items():
                if status in ("200", "503"):
                    continue
                shown = response["content"]["application/json"]
                assert shown["schema"] == {"$ref": "#/components/schemas/ErrorAnswer"}, name
                for code, example in shown["examples"].items():
                    assert TABLE[code].status == int(status), name
                    assert example["value"]["error"]["code"] == code


def test_the_description_holds_no_place_of_a_machine() -> None:
    """It is the same wherever it was made."""
    _, description = described()
    assert str(Path.home()) not in json.dumps(description)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("method", "path", "shown"),
    [
        ("PUT", "/v1/sites/tokyo", examples.SITES),
        ("PUT", "/v1/pairs/orders", examples.PAIRS),
        ("POST", "/v1/plan", examples.PLANS),
        ("POST", "/v1/pairs/orders/operations", examples.OPERATIONS),
        ("POST", "/v1/tokens", examples.TOKENS),
        ("POST", "/v1/agents/enrol", examples.ENROLMENTS),
    ],
)
async def test_every_example_is_understood(method: str, path: str, shown: dict[str, Any]) -> None:
    """What the description shows is accepted, or refused for the state of the world and never for its form."""
    service, _ = described()
    async with service.client("admin") as client:
        for example in shown.values():
            answer = await client.http.request(method, path, json=example["value"])
            assert answer.status_code in (200, 404, 409), answer.text
            if answer.status_code == 200:
                assert "error" not in answer.json()


def schema_of(app: FastAPI, token: str) -> Any:
    """Return the app as schemathesis sees it, called as an administrator."""
    config = SchemathesisConfig(
        projects=ProjectsConfig(default=ProjectConfig(headers={"Authorization": f"Bearer {token}"}))
    )
    schema = schemathesis.openapi.from_dict(app.openapi(), config=config)
    schema.app = app
    return schema


SERVICE, _ = described()
SCHEMA = schema_of(SERVICE.app, SERVICE.tokens["admin"])


@SCHEMA.exclude(path="/v1/events").parametrize()  # type: ignore[untyped-decorator]
@settings(max_examples=EXAMPLES_MAX, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_api_does_what_its_description_says(case: Any) -> None:
    """Any request, well-formed or not, is answered with a described status and body, and never with a bug."""
    case.call_and_validate(headers={"Authorization": f"Bearer {SERVICE.tokens['admin']}"}, excluded_checks=NOT_ASKED)
