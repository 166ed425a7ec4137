"""What the agent and its probe process say to each other: one request and one answer per connection to a unix socket.

The socket lies in a private directory and accepts only processes of the same user. Listening sockets travel over it as
descriptors, so that a newer release takes over without refusing one connection; passwords travel over it too, and are
kept in memory only. It knows nothing of records and databases.
"""

import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from farshore_agent.engines.probing import ProbeTarget
from farshore_schema.errors import Transient
from farshore_schema.roles import SIDES, Side

PROTOCOL: Final = 1
SOCKET_NAME: Final = "control.sock"
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024  # ten thousand sides with their passwords
DESCRIPTORS_MAX: Final = 200  # of SCM_MAX_FD's 253, see unix(7)
ANSWER_SECONDS: Final = 5.0
_LENGTH: Final = struct.Struct("!I")
_CREDENTIALS: Final = struct.Struct("3i")  # struct ucred, see unix(7)


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    """One side that the probe process answers for."""

    pair: str
    side: Side
    site: str
    record: str  # path of the durable record
    target: ProbeTarget | None  # None: the database cannot be asked, `problem` says why
    problem: str = ""

    def plain(self) -> dict[str, object]:
        """Return it as it travels."""
        return asdict(self)


def spec_of(plain: dict[str, object]) -> ProbeSpec:
    """Return what `plain` said; raises KeyError, TypeError or ValueError for anything else."""
    fields = dict(plain)
    target = fields.pop("target")
    if fields.get("side") not in SIDES:
        raise ValueError("no side")
    return ProbeSpec(target=ProbeTarget(**target) if isinstance(target, dict) else None, **fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Message:
    """A request or an answer, with the descriptors that came along (the receiver closes them)."""

    body: dict[str, object]
    descriptors: list[int] = field(default_factory=list)


@contextmanager
def reachable_path(directory: Path, name: str = SOCKET_NAME) -> Iterator[str]:
    """Give a short path to a socket in a directory however deep: addresses are limited to 108 bytes (unix(7))."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{name}"
    finally:
        os.close(handle)


def ask(directory: Path, body: dict[str, object], descriptors: Sequence[int] = ()) -> Message:
    """Send one request and return the answer; raises Transient("timeout") when nobody answers in time."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(ANSWER_SECONDS)
            with reachable_path(directory) as path:
                client.connect(path)
            send(client, Message(body, list(descriptors)))
            answer = receive(client)
    except (OSError, ValueError) as error:
        raise Transient("timeout", f"the probe process does not answer ({type(error).__name__})") from error
    return answer


def send(link: socket.socket, message: Message) -> None:
    """Send a message."""
    text = json.dumps(message.body).encode()
    socket.send_fds(link, [_LENGTH.pack(len(text))], message.descriptors)
    link.sendall(text)


def receive(link: socket.socket) -> Message:
    """Return the next message; raises OSError or ValueError when it does not come, or is not one."""
    head, descriptors, _flags, _ = socket.recv_fds(link, _LENGTH.size, DESCRIPTORS_MAX)
    try:
        head += _exactly(link, _LENGTH.size - len(head))
        (length,) = _LENGTH.unpack(head)
        if length > MESSAGE_BYTES_MAX:
            raise ValueError("message too long")
        body = json.loads(_exactly(link, length))
        if not isinstance(body, dict):
            raise ValueError("not a message")
    except BaseException:
        for each in descriptors:
            os.close(each)
        raise
    return Message(body, list(descriptors))


def is_same_user(link: socket.socket) -> bool:
    """Return whether the other end belongs to our user (or to root)."""
    raw = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(raw)
    return uid in (os.getuid(), 0)


def _exactly(link: socket.socket, length: int) -> bytes:
    parts = bytearray()
    while len(parts) < length:
        part = link.recv(min(length - len(parts), 1 << 20))
        if not part:
            raise ConnectionError("the other end closed the connection")
        parts += part
    return bytes(parts)
