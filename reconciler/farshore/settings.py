"""Every choice of `farshore serve`: one frozen value, read once at start; nobody reads the environment later."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from farshore_schema.connection import DEFAULT_PORT
from farshore_schema.errors import Permanent


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How one reconciler serves. Each field says its unit and why its default is what it is."""

    directory: Path
    """Where everything is kept: store, first token, the embedded agent's records. Private (0700)."""

    host: str = "127.0.0.1"
    """Address to listen on. Loopback, because anything else needs TLS and a decision who may connect."""

    port: int = DEFAULT_PORT
    """TCP port; 0 chooses a free one, which DIR/endpoint.json names. 7440 is not registered at IANA."""

    tls_cert: Path | None = None
    """PEM certificate chain; required off loopback, because tokens travel in the clear without it."""

    tls_key: Path | None = None
    """PEM private key of the certificate."""

    embedded_agent: bool = True
    """Start an agent that serves every site without an enrolled one, so that one machine is enough."""

    body_bytes_max: int = 1024 * 1024
    """Bytes of a request body. A pair's document is about 2 KB; a megabyte leaves room and bounds memory."""

    inspect_seconds: float = 20.0
    """Seconds a declaration waits for the gateways to look; below the 40 s that clients wait for an answer."""

    wait_seconds_max: float = 30.0
    """Seconds of a long poll. Below the idle timeouts (60 s) of common proxies."""

    streams_max: int = 100
    """Event streams at once; each costs a socket and about 20 KB."""

    heartbeat_seconds: float = 15.0
    """Seconds between comments on an idle event stream, so that proxies keep it and the dead are noticed."""

    enrolment_seconds: float = 900.0
    """Seconds a one-time enrolment code is good for: long enough to walk to the other site's terminal."""

    stop_seconds: float = 3.0
    """Seconds that open requests have to end at shutdown, so that stopping takes less than five."""

    def checked(self) -> "Settings":
        """Return the settings, or raise Permanent("invalid_request") for a combination that must not start."""
        if (self.tls_cert is None) != (self.tls_key is None):
            raise Permanent(
                "invalid_request", "a certificate and a key belong together", hint="--tls-cert and --tls-key"
            )
        if not is_loopback(self.host) and self.tls_cert is None:
            raise Permanent(
                "invalid_request",
                f"listening on {self.host} without TLS would send tokens in the clear",
                hint="give --tls-cert and --tls-key, or listen on 127.0.0.1",
            )
        for path in (self.tls_cert, self.tls_key):
            if path is not None and not path.is_file():
                raise Permanent("invalid_request", f"there is no file {path}", hint="name readable PEM files")
        return self

    def url(self, port: int) -> str:
        """Return the address that clients on this machine use."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)  # noqa: S104
        return f"{'https' if self.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def is_loopback(host: str) -> bool:
    """Say whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
