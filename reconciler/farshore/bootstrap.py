"""What `farshore serve` leaves in its directory for the other programs of this machine (R7).

`admin.token` (0600) is the first token, made once; `endpoint.json` says where the API listens while it does.
"""

import json
import os
from pathlib import Path
from typing import Final

from farshore.api import tokens
from farshore.clock import Clock
from farshore.store import keys
from farshore.store.records import Records, put
from farshore_schema.errors import Permanent

TOKEN_FILE: Final = "admin.token"  # noqa: S105 (a file's name)
ENDPOINT_FILE: Final = "endpoint.json"


def ensure_admin_token(directory: Path, records: Records, clock: Clock) -> None:
    """Leave a token in the directory that this store knows as an administrator's.

    A file whose token the store does not know (another store's, a revoked one, or a first start that was cut off
    between the two) is replaced.
    """
    path = directory / TOKEN_FILE
    try:
        known = tokens.find(records, path.read_text().strip())
    except FileNotFoundError:
        known = None
    except OSError as error:
        raise Permanent("store_failed", f"cannot read {path}: {error.strerror}", hint=f"ls -l {path}") from error
    if known is not None and known.role == "admin":
        return
    token = tokens.random_token("admin")
    write_private(path, token + "\n")
    record = tokens.new_record(token, "admin", clock, note=TOKEN_FILE, by="farshore serve")
    records.store.txn((), (put(keys.token(tokens.hashed(token)), record),))


def write_endpoint(directory: Path, url: str) -> None:
    """Say where the API listens, once it does."""
    write_private(directory / ENDPOINT_FILE, json.dumps({"url": url, "pid": os.getpid()}) + "\n")


def remove_endpoint(directory: Path) -> None:
    """Say that nothing listens any more. Idempotent."""
    (directory / ENDPOINT_FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file for its owner only, whole or not at all. Raises Permanent("store_failed")."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise Permanent(
            "store_failed", f"cannot write {path}: {error.strerror}", hint=f"df -h {path.parent}; ls -ld {path.parent}"
        ) from error
