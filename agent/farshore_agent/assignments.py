"""What this agent was told to serve, on disk: after a restart it goes on with nobody to tell it again (I10).

One file per side, beside its record. `served` is False for a side that was given away while protected: it is no longer
looked at or commanded from here, but its role probe goes on answering from the durable record.
"""

from pathlib import Path
from typing import Final, NamedTuple

import structlog
from pydantic import ValidationError

from farshore_agent import durable
from farshore_agent.records import side_directory
from farshore_schema.documents import MySQLEndpoint
from farshore_schema.errors import FarshoreError
from farshore_schema.messages import Assign
from farshore_schema.roles import Side

ASSIGNMENT_FILE: Final = "assignment.json"

_log = structlog.get_logger(__name__)


class Assignment(NamedTuple):
    """One side as it was last declared to this agent."""

    assign: Assign
    served: bool = True

    @property
    def endpoint(self) -> MySQLEndpoint:
        """Return the side's own endpoint."""
        document = self.assign.document
        return document.site_a if self.assign.side == "a" else document.site_b


def save(root: Path, assignment: Assignment) -> None:
    """Make an assignment durable."""
    path = _path(root, assignment.assign.pair, assignment.assign.side)
    durable.make_directory(path.parent)
    durable.write(path, {"assign": assignment.assign.model_dump(mode="json"), "served": assignment.served})


def forget(root: Path, pair: str, side: Side) -> None:
    """Remove an assignment; the record stays. Idempotent."""
    path = _path(root, pair, side)
    if path.exists():
        path.unlink()
        durable.sync_directory(path.parent)


def load_all(root: Path) -> tuple[list[Assignment], list[FarshoreError]]:
    """Return every readable assignment, and what is wrong with the others: one bad file must not stop the rest."""
    found: list[Assignment] = []
    errors: list[FarshoreError] = []
    for path in sorted((root / "sides").glob(f"*/*/{ASSIGNMENT_FILE}")):
        try:
            assignment = _load(path)
        except FarshoreError as error:
            _log.error("assignment not readable", path=str(path), code=error.code, reason=error.message)
            errors.append(error)
            continue
        if assignment is not None:
            found.append(assignment)
    return found, errors


def _load(path: Path) -> Assignment | None:
    content = durable.read(path)
    if content is None:
        return None
    try:
        assign = Assign.model_validate(content.get("assign"))
    except ValidationError as error:
        raise durable.corrupt(path, "holds no assignment of this release") from error
    return Assignment(assign, content.get("served") is not False)


def _path(root: Path, pair: str, side: Side) -> Path:
    return side_directory(root, pair, side) / ASSIGNMENT_FILE
