"""The committed JSON Schemas are those of the documents, and they accept what we accept."""

from pathlib import Path

import jsonschema
import pytest

from farshore_schema import errors_page, generate
from farshore_schema.errors import TABLE
from farshore_schema.validate import read_documents
from tests.unit.schema.test_validate import PAIR, SITE


def test_the_committed_schemas_are_current() -> None:
    """Editors complete from what this release really accepts."""
    assert generate.stale() == []


def test_a_stale_or_foreign_file_is_noticed(tmp_path: Path) -> None:
    """The check can fail."""
    for name, schema in generate.schemas().items():
        (tmp_path / name).write_text(generate.text_of(schema))
    assert generate.stale(tmp_path) == []
    (tmp_path / "site.json").write_text("{}\n")
    (tmp_path / "old.json").write_text("{}\n")
    assert generate.stale(tmp_path) == ["old.json", "site.json"]


def test_the_errors_page_is_current(tmp_path: Path) -> None:
    """The documentation names every code with its status and exit code; a changed table is noticed."""
    assert generate.stale_page() == []
    page = tmp_path / "errors.md"
    assert generate.stale_page(page) == ["errors.md"]
    page.write_text(errors_page.text().replace("| 404 |", "| 405 |"))
    assert generate.stale_page(page) == ["errors.md"]
    assert all(f"| `{code}` | {row.status} | {row.exit} |" in errors_page.text() for code, row in TABLE.items())


def test_the_schemas_are_valid_and_accept_our_documents() -> None:
    """A document that we read validates against the schema, and one with an unknown field does not."""
    schema = generate.schemas()["farshore.json"]
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for document in read_documents(f"{SITE}---\n{PAIR}").documents:
        validator.validate(document.model_dump(mode="json", exclude_none=True))
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"kind": "Site", "name": "tokyo", "colour": "red"})
