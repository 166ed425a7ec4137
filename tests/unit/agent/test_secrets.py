"""Secrets resolve on this machine only, in bounds, and are cut out of everything that leaves."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest
import structlog

from farshore_agent import logs
from farshore_agent.engines.probing import ProbeTarget
from farshore_agent.secrets import SECRET_BYTES_MAX, Redactor, Secrets
from farshore_agent.settings import Settings
from farshore_schema.errors import ErrorBody, Permanent


def write(path: Path, content: bytes, mode: int = 0o600) -> str:
    path.write_bytes(content)
    path.chmod(mode)
    return f"file:{path}"


def test_both_kinds_of_reference_resolve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable and a file give their value; one line's end at the end of a file is not part of it."""
    monkeypatch.setenv("TOKYO", "from the environment")
    assert Secrets().resolve("env:TOKYO") == "from the environment"
    for content in (b"from a file", b"from a file\n", b"from a file\r\n"):
        assert Secrets().resolve(write(tmp_path / "secret", content)) == "from a file"
    assert Secrets().resolve(write(tmp_path / "secret", b" spaces stay \n")) == " spaces stay "
    (tmp_path / "link").symlink_to(tmp_path / "secret")
    assert Secrets().resolve(f"file:{tmp_path / 'link'}") == " spaces stay "


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (b"", 0o600, "empty"),
        (b"\n", 0o600, "empty"),
        (b"x" * (SECRET_BYTES_MAX + 1), 0o600, "longer"),
        (b"a\0b", 0o600, "zero byte"),
        (b"\xff\xfe-secret", 0o600, "UTF-8"),
        (b"secret", 0o604, "every user"),
        (b"secret", 0o602, "every user"),
    ],
)
def test_an_unfit_file_is_refused_with_its_mend_and_without_its_content(
    tmp_path: Path, content: bytes, mode: int, why: str
) -> None:
    """Each refusal names the reference and what to do, and quotes nothing of the file."""
    reference = write(tmp_path / "secret", content, mode)
    with pytest.raises(Permanent) as refused:
        Secrets().resolve(reference)
    error = refused.value
    assert error.code == "secret_missing"
    assert why in error.message
    assert reference in error.message
    assert error.hint
    assert "-secret" not in f"{error.message}{error.hint}{error.__cause__!r}{error.__context__!r}".replace(
        reference, ""
    )


def test_what_is_no_regular_file_is_refused_and_cannot_hang(tmp_path: Path) -> None:
    """A folder, a pipe nobody writes to, a missing file, an unset variable, a relative path, another scheme."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    missing = f"file:{tmp_path / 'missing'}"
    for reference in (
        f"file:{tmp_path}",
        f"file:{tmp_path / 'pipe'}",
        missing,
        "env:FARSHORE_UNSET",
        "file:x",
        "vault:x",
    ):
        with pytest.raises(Permanent) as refused:
            Secrets().resolve(reference)
        assert refused.value.code == "secret_missing"


def test_a_resolved_value_is_cut_out_of_logs_and_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever a value shows up (message, list, nested value, traceback) the log line and the error carry a mark."""
    monkeypatch.setenv("TOKYO", "s3cret-value")
    secrets, out = Secrets(), io.StringIO()
    secrets.resolve("env:TOKYO")
    logs.configure(secrets.redactor, stream=out)
    try:
        log = structlog.get_logger("test")
        log.info(
            "look", dsn="mysql://u:s3cret-value@h", nested={"a": ["s3cret-value"]}, error=ValueError("s3cret-value")
        )
        try:
            raise RuntimeError("login with s3cret-value failed")
        except RuntimeError:
            log.exception("defect")
    finally:
        structlog.reset_defaults()
    assert "s3cret" not in out.getvalue()
    lines = [json.loads(line) for line in out.getvalue().splitlines()]
    assert lines[0]["dsn"] == "mysql://u:(secret)@h"
    assert "RuntimeError" in lines[1]["exception"]
    body = secrets.redactor.body(ErrorBody(code="bug", message="x s3cret-value", hint="s3cret-value y"))
    assert (body.message, body.hint) == ("x (secret)", "(secret) y")


def test_nothing_that_holds_a_secret_shows_it() -> None:
    """The texts of the holders carry no value."""
    redactor = Redactor()
    redactor.learn("s3cret-value")
    settings = Settings(directory=Path("/x"), url="http://127.0.0.1", agent="a", credential="s3cret-value")
    target = ProbeTarget(kind="mysql", host="h", port=1, user="u", password="s3cret-value")
    for holder in (redactor, Secrets(redactor), settings, target):
        assert "s3cret" not in f"{holder!r}{holder}"


def test_a_longer_secret_is_cut_before_one_that_it_contains() -> None:
    """No half of a longer secret is left behind by a shorter one."""
    redactor = Redactor()
    for value in ("pass", "password-1", "abc"):
        redactor.learn(value)
    assert redactor.text("password-1 pass abc") == "(secret) (secret) abc"
