"""The promise of the test bed's HAProxy: clients reach the side whose role probe answers 200, and only that one."""

from __future__ import annotations

import contextlib
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import require_installed
from tests.testbed.haproxy import Backend, HAProxy, haproxy_program
from tests.testbed.places import CHECKOUT
from tests.testbed.waiting import wait_until

pytestmark = pytest.mark.haproxy


class Side:
    """A stand-in for one side: a port that greets with its name, and a role probe that can be flipped."""

    def __init__(self, name: str, pair: str) -> None:
        self.name = name
        self.active = False
        side = self

        class Probe(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path == f"/primary/{pair}"
                self.send_response(404 if not found else 200 if side.active else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *arguments: object) -> None:
                """Keep quiet: a probe comes every 100 ms."""

        class Greeting(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.sendall(side.name.encode() + b"\n")
                self.request.recv(1)  # until the other end closes

        self.probe = ThreadingHTTPServer(("127.0.0.1", 0), Probe)
        self.service = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Greeting)
        self.service.daemon_threads = True

    @contextlib.contextmanager
    def serving(self) -> Iterator[Backend]:
        threads = [threading.Thread(target=each.serve_forever, args=(0.01,)) for each in (self.probe, self.service)]
        for thread in threads:
            thread.start()
        yield Backend(name=self.name, port=self.service.server_address[1], probe_port=self.probe.server_address[1])
        for each in (self.probe, self.service):
            each.shutdown()
            each.server_close()
        for thread in threads:
            thread.join()


def greeting(proxy: HAProxy) -> str:
    """Connect as a client does, and return the name of the side that answered; empty when none did."""
    with contextlib.suppress(OSError), socket.create_connection((proxy.host, proxy.port), 5) as link:
        return link.recv(100).decode().strip()
    return ""


def test_clients_follow_the_probe_and_are_cut_off_from_the_old_side(tmp_path: Path) -> None:
    """After a flip of the probes new clients reach the new side, and old sessions are closed by HAProxy."""
    require_installed(haproxy_program)
    tokyo, osaka = Side("tokyo", "orders"), Side("osaka", "orders")
    with contextlib.ExitStack() as ends:
        first, second = ends.enter_context(tokyo.serving()), ends.enter_context(osaka.serving())
        with HAProxy(tmp_path, pair="orders", first=first, second=second) as proxy:
            wait_until(lambda: not any(proxy.up().values()), "no side is active")
            assert greeting(proxy) == ""
            tokyo.active = True
            wait_until(lambda: greeting(proxy) == "tokyo", "tokyo answers")
            assert proxy.up() == {"tokyo": True, "osaka": False}
            with socket.create_connection((proxy.host, proxy.port), 5) as client:
                assert client.recv(100) == b"tokyo\n"
                tokyo.active, osaka.active = False, True
                assert client.recv(100) == b""  # shutdown-sessions
            wait_until(lambda: greeting(proxy) == "osaka", "osaka answers")


def test_the_recipe_in_the_documentation_is_the_one_that_is_tested(tmp_path: Path) -> None:
    """docs/routing.md shows the same directives as run here, but for addresses."""
    page = (CHECKOUT / "docs/routing.md").read_text()
    documented = next(block for block in page.split("```")[1::2] if "option httpchk" in block)
    first, second = Backend(name="tokyo", port=1, probe_port=2), Backend(name="osaka", port=3, probe_port=4)
    proxy = HAProxy(tmp_path, pair="orders", first=first, second=second)
    tested = proxy.configuration()
    proxy.release()
    assert directives(documented) <= directives(tested)
    assert {each for each in directives(tested) if each.split()[0] in CHECKS} <= directives(documented)


CHECKS = ("option", "http-check", "default-server", "server", "mode")


def directives(text: str) -> set[str]:
    """Return the indented lines, with addresses and ports taken out."""
    lines = [line.strip() for line in text.splitlines() if line.startswith(" ")]
    return {re.sub(r"(bind|server \w+) \S+|(port) \S+", r"\1\2", line) for line in lines}
