"""The journal stands on the standard library, PyMySQL and cryptography only, and on nothing else of ours."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import farshore_agent.mysql.journal as package

ALLOWED = {"pymysql", "cryptography"}


def test_the_package_imports_nothing_else() -> None:
    """So that a data-path process stays small and can be lifted out."""
    root = Path(next(iter(package.__path__)))
    for path in sorted(root.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                top = name.split(".")[0]
                ours = name == package.__name__ or name.startswith(package.__name__ + ".")
                assert ours or top in ALLOWED or top in sys.stdlib_module_names, f"{path.name} imports {name}"
