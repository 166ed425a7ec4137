"""Everything a run of the agent is told, read once at its start."""

import ipaddress
import os
import ssl
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from farshore_agent import durable
from farshore_schema.errors import Permanent

ENROLMENT_FILE: Final = "enrolment.json"
CREDENTIAL_FILE: Final = "credential"
CREDENTIAL_BYTES_MAX: Final = 4096
SESSION_PATH: Final = "/v1/agents/session"
ENROL_PATH: Final = "/v1/agents/redeem"


class Enrolment(BaseModel):
    """What an enrolled agent knows of its reconciler; kept in its directory."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    url: str
    agent: str
    sites: tuple[str, ...]
    ca_file: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run."""

    directory: Path  # private; everything that must last lies below it
    url: str  # of the reconciler, http or https
    agent: str  # name of this agent
    sites: tuple[str, ...] = ()  # an enrolled agent's; the embedded one is told with every welcome
    embedded: bool = False  # started by the reconciler: ends when that process is gone
    credential: str = field(repr=False, default="")
    ca_file: Path | None = None  # verifies the reconciler instead of the system's authorities
    plain_http: bool = False  # allow a credential over unencrypted HTTP to another machine: for test beds
    probe_host: str = "127.0.0.1"  # address that role probes listen on
    probe_ports: dict[str, int] = field(default_factory=dict)  # site -> port, for sites whose port a person chose


def read_credential(descriptor: int) -> str:
    """Return the credential that the parent wrote into an inherited pipe, up to its first line's end."""
    raw = b""
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        while b"\n" not in raw and len(raw) <= CREDENTIAL_BYTES_MAX:
            part = pipe.read(CREDENTIAL_BYTES_MAX)
            if not part:
                break
            raw += part
    text = raw.split(b"\n", 1)[0].decode("ascii", "replace").strip()
    if not text:
        raise Permanent("unauthenticated", "no credential came through the inherited pipe")
    return text


def enrolled(directory: Path) -> tuple[Enrolment, str]:
    """Return what an earlier `enrol` left in a directory; raises Permanent with the command when there is nothing."""
    content = durable.read(directory / ENROLMENT_FILE)
    hint = "farshore-agent enrol --url URL --code CODE, with the code that `farshore agents enrol --site SITE` prints"
    if content is None:
        raise Permanent("not_enrolled", f"no agent is enrolled in {directory}", hint=hint)
    try:
        enrolment = Enrolment.model_validate(content)
        credential = (directory / CREDENTIAL_FILE).read_text().strip()
    except (ValidationError, OSError) as error:
        raise Permanent("not_enrolled", f"the enrolment in {directory} is damaged", hint=hint) from error
    return enrolment, credential


def session_url(settings: Settings) -> str:
    """Return the WebSocket's address; raises Permanent when the credential would cross a network unencrypted."""
    parts = urlsplit(settings.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Permanent("invalid_request", f"{settings.url} is no http or https address", field="url")
    if parts.scheme == "http" and not settings.plain_http and not is_loopback(parts.hostname):
        raise Permanent(
            "tls_mismatch",
            f"{settings.url} would carry the credential unencrypted to another machine",
            hint="use https (and --ca-file for a private authority)",
            field="url",
        )
    scheme = "wss" if parts.scheme == "https" else "ws"
    return f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}{SESSION_PATH}"


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how the reconciler is verified, None without TLS."""
    if not settings.url.startswith("https:"):
        return None
    return ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def with_probes(settings: Settings, *, host: str, ports: dict[str, int], plain_http: bool) -> Settings:
    """Return the settings with what a person chose for probes and networks."""
    return replace(settings, probe_host=host, probe_ports=ports, plain_http=plain_http)
