"""The promise of the test bed's HAProxy: clients reach the side whose role probe answers 200, and only that one."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.conftest import require_installed
from tests.testbed.haproxy import Backend, HAProxy, haproxy_program
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
