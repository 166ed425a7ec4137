"""Have the real Pulumi engine for tests: the machine's own, an earlier build, or a build from its Go modules.

`python -m tests.testbed.pulumi_build` builds it ahead of the tests. Users of the product install Pulumi's own
release; the build is for test machines that cannot reach it. The CLI builds from its current module; its Python
language host is published as a module only up to sdk v3.60.0, and that one works with the current engine.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.testbed.places import TestBedError, bed_directory, once, say
from tests.testbed.processes import end, spawn
from tests.testbed.require import in_ci

VERSION = "v3.250.0"
"""Of the engine; the go.mod files beside this file lock it and everything it needs."""
SOURCES = Path(__file__).with_name("engine")
SDK = "github.com/pulumi/pulumi/sdk/v3"
CLI_PACKAGE = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
HOST_PACKAGE = f"{SDK}/python/cmd/pulumi-language-python"
PROGRAMS_FROM_SDK = ("python/dist/pulumi-resource-pulumi-python", "python/cmd/pulumi-language-python-exec")
"""Scripts that the engine looks for beside its language host."""
BUILD_SECONDS = 1500.0
PROGRESS_SECONDS = 15.0
OWN_RELEASE = "install Pulumi's own release: curl -fsSL https://get.pulumi.com | sh   (and put ~/.pulumi/bin on PATH)"


@dataclass(frozen=True, kw_only=True)
class PulumiInstallation:
    """One engine with its Python language host."""

    version: str
    folder: Path
    """Goes on PATH."""


def pulumi_installation() -> PulumiInstallation:
    """Return an engine, building it first when there is none (about four minutes, once).

    Raises TestBedError with the one line that installs Pulumi's own release when it cannot be had.
    """
    if os.environ.get("FARSHORE_TESTBED_PULUMI") == "skip" and not in_ci():
        raise TestBedError("the Pulumi engine is left out (FARSHORE_TESTBED_PULUMI=skip)")
    cli = shutil.which("pulumi")
    if cli is not None and shutil.which("pulumi-language-python") is not None:
        return PulumiInstallation(version=_version(Path(cli)), folder=Path(cli).parent)
    home = bed_directory() / "pulumi"
    done = home / "built.json"
    once(done, lambda: _build(home))
    version = json.loads(done.read_text())["version"]
    return PulumiInstallation(version=version, folder=home / "bin")


def _build(home: Path) -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise TestBedError(f"no Pulumi engine, and no Go to build it with: {OWN_RELEASE}")
    binaries = home / "bin.new"
    shutil.rmtree(binaries, ignore_errors=True)
    binaries.mkdir(parents=True)
    sources = home / "sources"
    shutil.rmtree(sources, ignore_errors=True)
    shutil.copytree(SOURCES, sources)
    version_flag = f"-X {SDK}/go/common/version.Version={VERSION}"  # without it the Automation API refuses the CLI
    _go_build(go, sources / "python_host", HOST_PACKAGE, binaries, "", "Python language host (about a minute)")
    _go_build(go, sources / "cli", CLI_PACKAGE, binaries, version_flag, f"engine {VERSION} (about four minutes, once)")
    sdk = _module_folder(go, sources / "cli", SDK)
    for name in PROGRAMS_FROM_SDK:
        target = binaries / Path(name).name
        shutil.copyfile(sdk / name, target)
        target.chmod(0o755)
    version = _version(binaries / "pulumi")
    shutil.rmtree(home / "bin", ignore_errors=True)
    binaries.rename(home / "bin")
    (home / "built.json").write_text(json.dumps({"version": version}))
    say(f"Pulumi {version} is ready")


def _go_build(go: str, module: Path, package: str, binaries: Path, linker_flags: str, what: str) -> None:
    command = [go, "build", "-mod=mod", "-trimpath", "-buildvcs=false", "-ldflags", f"-s -w {linker_flags}".strip()]
    log_path = module / "build.log"
    started = time.monotonic()
    say(f"Pulumi: building the {what}")
    with log_path.open("wb") as log:
        output = str(binaries / package.rsplit("/", 1)[1])
        process = spawn([*command, "-o", output, package], cwd=module, environment=_go(), stdout=log, stderr=log)
    while True:
        try:
            code = process.wait(PROGRESS_SECONDS)
            break
        except subprocess.TimeoutExpired:
            elapsed = time.monotonic() - started
            if elapsed > BUILD_SECONDS:
                end(process, kill=True)
                raise TestBedError(
                    f"building the Pulumi {what} took over {BUILD_SECONDS:.0f} s: {OWN_RELEASE}"
                ) from None
            say(f"Pulumi: building the {what}: {elapsed:.0f} s")
    if code != 0:
        words = log_path.read_text(errors="replace").strip()[-1500:]
        raise TestBedError(f"building the Pulumi {what} failed: {words}\nInstead, {OWN_RELEASE}")


def _go() -> Mapping[str, str]:
    """Return the environment for Go: its own caches where it has a home, else below the test bed."""
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off", "CGO_ENABLED": "0"}
    home = Path(environment.get("HOME", "/nonexistent"))
    if not os.access(home, os.W_OK):
        folder = bed_directory() / "go"
        environment |= {"GOPATH": str(folder), "GOCACHE": str(folder / "build"), "GOMODCACHE": str(folder / "modules")}
    return environment


def _module_folder(go: str, module: Path, name: str) -> Path:
    done = subprocess.run(
        [go, "list", "-mod=mod", "-m", "-f", "{{.Dir}}", name],
        cwd=module,
        env=dict(_go()),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if done.returncode != 0:
        raise TestBedError(f"go list {name} failed: {done.stderr.strip()[-500:]}")
    return Path(done.stdout.strip())


def _version(cli: Path) -> str:
    environment = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    done = subprocess.run(
        [str(cli), "version"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
        check=False,
    )
    if done.returncode != 0 or not done.stdout.startswith("v"):
        raise TestBedError(f"{cli} version failed: {done.stderr.strip()[-500:]}")
    return done.stdout.strip()


def main() -> int:
    """Build if need be and print the version; exit 1 with the reason."""
    try:
        installation = pulumi_installation()
    except TestBedError as error:
        say(str(error))
        return 1
    say(f"Pulumi {installation.version} ({installation.folder})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
