"""Judge a command line as the product's own command trees would, without running anything.

Typer's parser decides about options and arguments, so what is accepted here is what the terminal accepts. It knows
nothing of where a command line was found.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import typer.main
from typer.exceptions import TyperException

from farshore.cli import app as reconciler_app
from farshore_agent.main import app as agent_app

ROOT = Path(__file__).resolve().parents[3]
PROGRAMS = ("farshore", "farshore-agent", "make")
ASSIGNMENT = re.compile(r"[A-Za-z_]+=")


@cache
def _tree(program: str) -> Any:
    return typer.main.get_command(agent_app if program == "farshore-agent" else reconciler_app)


@cache
def _makefile() -> str:
    return (ROOT / "Makefile").read_text()


def mistake(line: str) -> str | None:
    """Return why a command line would be refused, or None. Lines of other programs are not judged."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return str(error)
    while words and (words[0] in ("$", "sudo") or ASSIGNMENT.match(words[0])):
        del words[0]
    if not words or words[0] not in PROGRAMS:
        return None
    for end in ("&&", "||", "|", ";", ">", "&"):
        if end in words:
            words = words[: words.index(end)]
    return _make(words[1:]) if words[0] == "make" else _walk(words[0], words[1:])


def _make(words: Sequence[str]) -> str | None:
    for word in words:
        name, equals, _ = word.partition("=")
        if equals and not re.search(rf"^{re.escape(name)} \?=", _makefile(), re.MULTILINE):
            return f"the Makefile has no variable {name}"
        if not equals and not re.search(rf"^{re.escape(name)}:", _makefile(), re.MULTILINE):
            return f"the Makefile has no target {name}"
    return None


def _walk(program: str, words: Sequence[str]) -> str | None:
    command, path, rest = _tree(program), program, list(words)
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        name = rest.pop(0)
        if name not in command.commands:
            return f'"{path}" has no command "{name}"'
        command, path = command.commands[name], f"{path} {name}"
    return _parse(command, path, rest)


def _parse(command: Any, path: str, words: list[str]) -> str | None:
    context = command.context_class(command, info_name=path)
    if any(word in command.get_help_option_names(context) for word in words):
        return None
    try:
        given, rest, mentioned = command.make_parser(context).parse_args(args=words)
    except TyperException as error:
        return f'"{path}": {error.format_message()}'
    if rest:
        return f'"{path}" takes no further argument: {" ".join(rest)}'
    if hasattr(command, "commands"):
        return None if mentioned else f'"{path}" needs a command, one of {", ".join(command.commands)}'
    lacking = [each.name for each in command.params if each.required and given.get(each.name) is None]
    return f'"{path}" lacks {", ".join(lacking)}' if lacking else None
