"""Bearer tokens: made, hashed, looked up. Only hashes are stored; a token is shown once.

A token carries 256 random bits, so a plain SHA-256 of it tells nothing and can be looked up by itself: there is no
secret left to compare in constant time.
"""

import base64
import hashlib
import secrets
from collections.abc import Iterator
from typing import Final, NamedTuple

from farshore.clock import Clock
from farshore.store import Delete, absent, keys
from farshore.store.records import Records, TokenRecord, TokenRole, Versioned, put
from farshore_schema.errors import Refused

_RANDOM_BYTES: Final = 32
_CODE_BYTES: Final = 15  # 24 characters of base32: typed by a person at another terminal
_PREFIXES: Final[dict[TokenRole, str]] = {"viewer": "fsv", "operator": "fso", "admin": "fsa", "agent": "fsg"}
_ID_CHARACTERS: Final = 12


class Made(NamedTuple):
    """A new token: the secret, which is never stored, and its record."""

    token: str
    record: TokenRecord


def hashed(token: str) -> str:
    """Return the name under which a token is stored."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def random_token(role: TokenRole) -> str:
    """Return a new secret. The prefix lets people, and scanners for leaked secrets, tell what it is."""
    return f"{_PREFIXES[role]}_{secrets.token_urlsafe(_RANDOM_BYTES)}"


def random_code() -> str:
    """Return a new one-time code in groups, such as ABCD-EFGH-…"""
    plain = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode()
    return "-".join(plain[at : at + 4] for at in range(0, len(plain), 4))


def new_record(
    token: str, role: TokenRole, clock: Clock, *, note: str = "", by: str = "", sites: tuple[str, ...] = ()
) -> TokenRecord:
    """Return the record of a token."""
    return TokenRecord(id=hashed(token)[:_ID_CHARACTERS], role=role, note=note, sites=sites, created=clock.now(), by=by)


def create(records: Records, clock: Clock, role: TokenRole, *, note: str = "", by: str = "") -> Made:
    """Make and store a token."""
    token = random_token(role)
    record = new_record(token, role, clock, note=note, by=by)
    key = keys.token(hashed(token))
    records.store.txn((absent(key),), (put(key, record),))
    return Made(token, record)


def find(records: Records, token: str) -> TokenRecord | None:
    """Return the record of a token, None when it is not known."""
    found = records.read(keys.token(hashed(token)), TokenRecord)
    return None if found is None else found.value


def every(records: Records) -> Iterator[Versioned[TokenRecord]]:
    """Return all tokens' records."""
    for item in records.store.list(keys.TOKENS).items:
        yield records.parsed(item, TokenRecord)


def revoke(records: Records, token_id: str) -> None:
    """Make a token useless at once; raise Refused("not_found")."""
    for found in every(records):
        if found.value.id == token_id:
            records.store.txn((), (Delete(found.key),))
            return
    raise Refused("not_found", f"there is no token {token_id}", hint="`farshore token list` shows them")
