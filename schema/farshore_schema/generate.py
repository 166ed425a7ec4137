"""Write what is generated: schema/json for editors, docs/errors.md; `--check` only compares.

python -m farshore_schema.generate [--check]
"""

import json
import sys
from pathlib import Path
from typing import Any

from farshore_schema import errors_page
from farshore_schema.documents import DOCUMENT, MySQLPair, Site

FOLDER = Path(__file__).resolve().parents[1] / "json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schemas() -> dict[str, dict[str, Any]]:
    """Return the schema of each file by its name."""
    found = {
        "site.json": Site.model_json_schema(),
        "mysql-pair.json": MySQLPair.model_json_schema(),
        "farshore.json": DOCUMENT.json_schema(),
    }
    return {name: {"$schema": DIALECT} | schema for name, schema in found.items()}


def text_of(schema: dict[str, Any]) -> str:
    """Return a schema as it stands in its file."""
    return json.dumps(schema, indent=2, sort_keys=True) + "\n"


def stale(folder: Path = FOLDER) -> list[str]:
    """Return the names of files that are not what the documents say now, and of files that should not be there."""
    wanted = {name: text_of(schema) for name, schema in schemas().items()}
    there = {path.name: path.read_text() for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def stale_page(page: Path = errors_page.PAGE) -> list[str]:
    """Return the name of the errors page when it is not what the table says now."""
    return [] if page.is_file() and page.read_text() == errors_page.text() else [page.name]


def main(arguments: list[str]) -> int:
    """Write, or compare; return the exit code."""
    if arguments == ["--check"]:
        names = stale() + stale_page()
        if names:
            print(f"not current: {', '.join(names)}; run: python -m farshore_schema.generate", file=sys.stderr)
        return 1 if names else 0
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    FOLDER.mkdir(parents=True, exist_ok=True)
    for path in FOLDER.glob("*.json"):
        path.unlink()
    for name, schema in schemas().items():
        (FOLDER / name).write_text(text_of(schema))
    errors_page.PAGE.write_text(errors_page.text())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
