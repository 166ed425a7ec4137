"""What the probe process answers for, from the agent's assignments: sites, records, and where to ask the database."""

from collections.abc import Callable, Iterable
from pathlib import Path

from farshore_agent.assignments import Assignment
from farshore_agent.engines.probing import ProbeTarget
from farshore_agent.probes.control import ProbeSpec
from farshore_agent.records import RECORD_FILE, side_directory
from farshore_agent.secrets import Secrets
from farshore_schema.errors import FarshoreError

CHECK_KINDS = {"MySQLPair": "mysql"}


def probe_specs(root: Path, assignments: Callable[[], Iterable[Assignment]], secrets: Secrets) -> list[ProbeSpec]:
    """Return one spec per assigned side; where a secret does not resolve, the probe says so instead of asking."""
    specs = [_spec(root, assignment, secrets) for assignment in assignments()]
    return sorted(specs, key=lambda spec: (spec.pair, spec.side))


def _spec(root: Path, assignment: Assignment, secrets: Secrets) -> ProbeSpec:
    assign, endpoint = assignment.assign, assignment.endpoint
    target, problem = None, ""
    try:
        target = ProbeTarget(
            kind=CHECK_KINDS[assign.document.kind],
            host=endpoint.host,
            port=endpoint.port,
            user=endpoint.admin.user,
            password=secrets.resolve(endpoint.admin.password),
            tls_mode=endpoint.tls.mode,
            tls_ca_file=endpoint.tls.ca_file,
        )
    except FarshoreError as error:
        problem = f"{error.code}: {error.message}"
    return ProbeSpec(
        pair=assign.pair,
        side=assign.side,
        site=endpoint.site,
        record=str(side_directory(root, assign.pair, assign.side) / RECORD_FILE),
        target=target,
        problem=problem,
    )
