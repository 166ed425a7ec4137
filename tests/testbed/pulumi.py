"""Run real Pulumi programs with the real engine, isolated from the developer's own Pulumi.

Each engine has its own home, a local backend and a passphrase. Every command is non-interactive, bounded in time,
and gives what it printed and its exit code; it is the test that judges them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.testbed.places import TestBedError
from tests.testbed.processes import end_all, spawn
from tests.testbed.pulumi_build import PulumiInstallation, pulumi_installation

COMMAND_SECONDS = 300.0
"""An operation on a handful of resources takes two seconds; a declared switchover may wait for two minutes."""
END_SECONDS = 20.0
PASSPHRASE = "farshore-tests"
NOT_PART_OF_A_PROJECT = shutil.ignore_patterns("__pycache__", ".venv", "venv", "Pulumi.*.yaml", ".pulumi")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one Pulumi command did."""

    command: tuple[str, ...]
    exit_code: int
    """Of the process; negative: the signal that ended it."""
    stdout: str
    stderr: str

    @property
    def text(self) -> str:
        """Everything it printed."""
        return f"{self.stdout}\n{self.stderr}"

    def ok(self) -> Self:
        """Return this outcome when the command succeeded; raise AssertionError with what it printed otherwise."""
        if self.exit_code != 0:
            raise AssertionError(f"pulumi {' '.join(self.command)} ended with {self.exit_code}:\n{self.text[-6000:]}")
        return self


class PulumiEngine:
    """One Pulumi home and backend in `directory`; any number of stacks."""

    def __init__(
        self,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        installation: PulumiInstallation | None = None,
    ) -> None:
        self.directory = directory
        self.installation = pulumi_installation() if installation is None else installation
        for folder in ("home", "backend", "projects"):
            (directory / folder).mkdir(parents=True, exist_ok=True)
        self._extra = dict(environment or {})

    @property
    def environment(self) -> dict[str, str]:
        """The environment of every command; for the Automation API, too."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PULUMI_")}
        # This Python's folder first: the built language host ignores the `virtualenv` option and takes PATH's python.
        path = [str(Path(sys.executable).parent), str(self.installation.folder), os.environ.get("PATH", os.defpath)]
        own = {
            "PATH": os.pathsep.join(path),
            "PULUMI_HOME": str(self.directory / "home"),
            "PULUMI_BACKEND_URL": f"file://{self.directory / 'backend'}",
            "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PYTHONDONTWRITEBYTECODE": "1",
            "NO_COLOR": "1",
        }
        return {**inherited, **own, **self._extra}

    def stack(self, name: str, *, template: Path, project: str | None = None) -> Stack:
        """Copy the project folder `template`, make the stack `name` in it, and return that.

        `project` names the copy's folder (default: the template's name), so that two stacks can share or not share
        a project. The project's own name stands in its Pulumi.yaml.
        """
        folder = self.directory / "projects" / (project or template.name)
        if not folder.exists():
            shutil.copytree(template, folder, ignore=NOT_PART_OF_A_PROJECT)
        stack = Stack(engine=self, name=name, directory=folder)
        stack.run("stack", "init", name, "--no-select").ok()
        return stack


class Stack:
    """One stack of one project."""

    def __init__(self, *, engine: PulumiEngine, name: str, directory: Path) -> None:
        self.engine = engine
        self.name = name
        self.directory = directory

    def config_set(self, key: str, value: str, *, secret: bool = False) -> None:
        """Set a configuration value; it goes through standard input, so it is in no process list."""
        self.run("config", "set", key, "--secret" if secret else "--plaintext", stdin=value, stack=True).ok()

    def preview(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> Outcome:
        """Show what `up` would do; `--json` among the arguments gives the machine's form."""
        return self.run("preview", *arguments, stack=True, seconds=seconds)

    def up(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> Outcome:
        """Apply the program without a question."""
        return self.run("up", "--yes", "--skip-preview", *arguments, stack=True, seconds=seconds)

    def refresh(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> Outcome:
        """Read the resources' real state without a question."""
        return self.run("refresh", "--yes", "--skip-preview", *arguments, stack=True, seconds=seconds)

    def destroy(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> Outcome:
        """Remove every resource without a question."""
        return self.run("destroy", "--yes", "--skip-preview", *arguments, stack=True, seconds=seconds)

    def export(self, *arguments: str) -> dict[str, Any]:
        """Return the stored state (`pulumi stack export`)."""
        found: dict[str, Any] = json.loads(self.run("stack", "export", *arguments, stack=True).ok().stdout)
        return found

    def resources(self) -> list[dict[str, Any]]:
        """Return the resources in the stored state, without the stack itself and Pulumi's own providers."""
        found = self.export()["deployment"].get("resources", [])
        return [each for each in found if not each["type"].startswith("pulumi:")]

    def outputs(self) -> dict[str, Any]:
        """Return the stack's outputs."""
        found: dict[str, Any] = json.loads(self.run("stack", "output", "--json", stack=True).ok().stdout)
        return found

    def start(self, *arguments: str, stack: bool = True) -> RunningCommand:
        """Start a command without waiting for it: for tests that kill it in the middle."""
        words = [*arguments, "--non-interactive", "--color", "never", "--cwd", str(self.directory)]
        if stack:
            words += ["--stack", self.name]
        return RunningCommand(words, environment=self.engine.environment, stdin=None)

    def run(
        self, *arguments: str, stdin: str | None = None, stack: bool = False, seconds: float = COMMAND_SECONDS
    ) -> Outcome:
        """Run `pulumi` with `arguments` in the project; `stack` adds `--stack` with this stack's name.

        Raises TestBedError when it takes longer than `seconds`; it is killed with its children then.
        """
        words = [*arguments, "--non-interactive", "--color", "never", "--cwd", str(self.directory)]
        if stack:
            words += ["--stack", self.name]
        return RunningCommand(words, environment=self.engine.environment, stdin=stdin).wait(seconds)


class RunningCommand:
    """A Pulumi command in flight."""

    def __init__(self, words: Sequence[str], *, environment: Mapping[str, str], stdin: str | None) -> None:
        self.command = tuple(words)
        self._token = secrets.token_hex(8)  # the engine puts its plugins into process groups of their own
        # Files, not pipes: a plugin that outlives the engine for a moment would keep a pipe open.
        self._stdout = tempfile.TemporaryFile()  # noqa: SIM115  # closed in wait
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        program = shutil.which("pulumi", path=environment["PATH"])
        if program is None:
            raise TestBedError("the Pulumi engine is gone from its folder")
        with tempfile.TemporaryFile() as given:
            given.write((stdin or "").encode())
            given.seek(0)
            self.process = spawn(
                [program, *words],
                environment=environment,
                stdin=given,
                stdout=self._stdout,
                stderr=self._stderr,
                token=self._token,
            )

    def kill(self) -> None:
        """Kill the engine and everything it started, as a crash of the machine would."""
        end_all(self._token)

    def wait(self, seconds: float = COMMAND_SECONDS) -> Outcome:
        """Wait for its end and return the outcome.

        Raises TestBedError when it takes longer than `seconds`; it is killed with its children then.
        """
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            self.process.wait(END_SECONDS)
            outcome = self._outcome()
            raise TestBedError(
                f"pulumi {' '.join(self.command)} took longer than {seconds:.0f} s; it had printed:\n{outcome.text}"
            ) from None
        return self._outcome()

    def _outcome(self) -> Outcome:
        texts = []
        for stream in (self._stdout, self._stderr):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
            stream.close()
        return Outcome(command=self.command, exit_code=self.process.returncode, stdout=texts[0], stderr=texts[1])
