"""Turning a one-time code into this agent's own credential, kept in its directory (R7)."""

import json
import os
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from farshore_agent import durable
from farshore_agent.settings import (
    CREDENTIAL_FILE,
    ENROL_PATH,
    ENROLMENT_FILE,
    Enrolment,
    Settings,
    session_url,
    tls_context,
)
from farshore_schema.access import Redeemed, RedeemRequest
from farshore_schema.errors import ErrorBody, FarshoreError, Permanent, Refused, Transient, from_body

ANSWER_SECONDS: Final = 15.0
ANSWER_BYTES_MAX: Final = 64 * 1024


def enrol(settings: Settings, code: str, *, again: bool = False) -> Enrolment:
    """Redeem a code and keep what it brought; raises FarshoreError, and the directory is unchanged then.

    A directory belongs to one enrolment; `again` replaces the one that is there.
    """
    session_url(settings)  # refuses an address over which a credential must not travel
    if not again and (settings.directory / ENROLMENT_FILE).exists():
        raise Refused(
            "not_possible_now",
            f"{settings.directory} is enrolled already",
            hint="give the other site a directory of its own, or replace this enrolment with --again",
        )
    redeemed = _redeem(settings, code)
    enrolment = Enrolment(
        url=settings.url,
        agent=redeemed.agent,
        sites=redeemed.sites,
        ca_file=str(settings.ca_file) if settings.ca_file else None,
    )
    durable.make_directory(settings.directory)
    _write_credential(settings.directory / CREDENTIAL_FILE, redeemed.credential)
    durable.write(settings.directory / ENROLMENT_FILE, enrolment.model_dump(mode="json"))
    return enrolment


def _redeem(settings: Settings, code: str) -> Redeemed:
    body = RedeemRequest(code=code, agent=settings.agent or socket.gethostname()).model_dump_json().encode()
    request = urllib.request.Request(  # noqa: S310 - session_url has let only http and https through
        settings.url.rstrip("/") + ENROL_PATH, data=body, headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_SECONDS, context=tls_context(settings)) as answer:  # noqa: S310
            return Redeemed.model_validate_json(answer.read(ANSWER_BYTES_MAX))
    except urllib.error.HTTPError as error:
        with error:
            raise _refusal(error.read(ANSWER_BYTES_MAX), error.code) from error
    except (OSError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise Permanent("protocol_mismatch", "the reconciler's answer is not understood") from None
        raise Transient(
            "reconciler_unreachable",
            f"{settings.url} does not answer ({error})",
            hint="check the address and the network",
        ) from error


def _refusal(raw: bytes, status: int) -> FarshoreError:
    try:
        return from_body(ErrorBody.model_validate(json.loads(raw)["error"]))
    except (ValueError, KeyError, TypeError):  # not our service, or something before it
        hint = "print a new one-time code: farshore agents enrol --site SITE"
        return Permanent("unauthenticated", f"the reconciler refused the code (HTTP {status})", hint=hint)


def _write_credential(path: Path, credential: str) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, durable.PRIVATE_FILE)
    with os.fdopen(handle, "w") as file:
        file.write(credential + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    durable.sync_directory(path.parent)
