"""What the demo plays on: two real MySQL servers, a reconciler, HAProxy, a Pulumi stack; all of it ended at the end."""

from __future__ import annotations

import secrets
import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from farshore_agent.mysql.accounts import AccountKind, creation_statements
from tests.testbed.haproxy import Backend, HAProxy
from tests.testbed.mysql import MySQLServer
from tests.testbed.pulumi import PulumiEngine, Stack
from tests.testbed.reconciler import Reconciler
from tests.testbed.waiting import wait_until

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "mysql-pair"
APPLICATION = ("app", "application")
"""The clients' login. It is a password of this demo's own servers on loopback."""


@dataclass
class Site:
    """One site of the demo: its server and its accounts' passwords."""

    name: str
    server: MySQLServer
    admin: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)
    replication: str = field(default_factory=lambda: secrets.token_urlsafe(18), repr=False)

    def provision(self) -> None:
        """Create the two accounts that Farshore logs in with, exactly as the documentation says."""
        admin = creation_statements(AccountKind.ADMIN, f"farshore_{self.name}", "%", password=self.admin)
        replication = creation_statements(
            AccountKind.REPLICATION, f"farshore_{self.name}_repl", "%", password=self.replication
        )
        # Not logged: the other site has accounts of other names.
        self.server.execute("SET sql_log_bin = 0", *admin, *replication)

    @property
    def secrets(self) -> dict[str, str]:
        """The environment that holds the passwords behind the declaration's references."""
        return {f"{self.name.upper()}_ADMIN": self.admin, f"{self.name.upper()}_REPLICATION": self.replication}


class Stage:
    """Everything that runs during the demo. A context manager: nothing is left running."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._exits = ExitStack()

    def __enter__(self) -> Self:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exits.close()
        if kind is None:
            shutil.rmtree(self.directory, ignore_errors=True)

    def servers(self) -> tuple[Site, Site]:
        """Start one MySQL per site, with Farshore's accounts."""
        sites = []
        for name in ("tokyo", "osaka"):
            server = MySQLServer.create(self.directory / "mysql", name=name)
            self._exits.callback(server.remove)
            site = Site(name, server)
            site.provision()
            sites.append(site)
        self.tokyo, self.osaka = sites
        return self.tokyo, self.osaka

    def reconciler(self) -> Reconciler:
        """Start `farshore serve` on an empty directory."""
        running = Reconciler(self.directory / "farshore", secrets=self.tokyo.secrets | self.osaka.secrets)
        running.start()
        self._exits.callback(running.close)
        self.farshore = running
        return running

    def declaration(self, **more: Any) -> dict[str, Any]:
        """Return the pair `orders` between the two servers as a document."""
        return {
            "kind": "MySQLPair",
            "version": "farshore/v1",
            "name": "orders",
            "site_a": self._endpoint(self.tokyo),
            "site_b": self._endpoint(self.osaka),
        } | more

    def _endpoint(self, site: Site) -> dict[str, Any]:
        upper = site.name.upper()
        return {
            "site": site.name,
            "host": "127.0.0.1",
            "port": site.server.port,
            "admin": {"user": f"farshore_{site.name}", "password": f"env:{upper}_ADMIN"},
            "replication": {"user": f"farshore_{site.name}_repl", "password": f"env:{upper}_REPLICATION"},
        }

    def declare(self, **more: Any) -> None:
        """Declare both sites and the pair over the API, without Pulumi."""
        for name in ("tokyo", "osaka"):
            self.farshore.declare_site(name)
        self.farshore.declare(self.declaration(**more))

    def stack(self) -> Stack:
        """Make the example's Pulumi stack."""
        engine = PulumiEngine(self.directory / "pulumi", environment=self.farshore.environment)
        made = engine.stack("demo", template=EXAMPLE)
        made.config_set("tokyo_port", str(self.tokyo.server.port))
        made.config_set("osaka_port", str(self.osaka.server.port))
        return made

    def haproxy(self) -> HAProxy:
        """Route clients by the role probes of the gateways."""
        wait_until(lambda: {"tokyo", "osaka"} <= self._probe_ports().keys(), "the gateways' role probes listen")
        ports = self._probe_ports()
        proxy = HAProxy(
            self.directory,
            pair="orders",
            first=Backend(name="tokyo", port=self.tokyo.server.port, probe_port=ports["tokyo"]),
            second=Backend(name="osaka", port=self.osaka.server.port, probe_port=ports["osaka"]),
        )
        self._exits.enter_context(proxy)
        return proxy

    def _probe_ports(self) -> dict[str, int]:
        ports: dict[str, int] = {}
        for agent in self.farshore.answer("GET", "/v1/agents")["items"]:
            ports |= agent.get("probe_ports", {})
        return ports
