"""Durations and sizes as people write them ("30s", "15m", "20GiB"), normalised and turned into numbers."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
_BYTES |= {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DURATION = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)")
_SIZE = re.compile(r"(\d{1,12})(B|KB|MB|GB|TB|KiB|MiB|GiB|TiB)")


def seconds(duration: str) -> float:
    """Return the seconds in a duration such as "30s"; raise ValueError with an example when it is not one."""
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise ValueError(
            f'"{duration}" is not a duration; write a number and a unit, for example "500ms", "30s", "15m" or "7d"'
        )
    return float(match[1]) * _SECONDS[match[2]]


def bytes_of(size: str) -> int:
    """Return the bytes in a size such as "20GiB"; raise ValueError with an example when it is not one."""
    match = _SIZE.fullmatch(size)
    if match is None:
        raise ValueError(f'"{size}" is not a size; write a whole number and a unit, for example "512MiB" or "20GB"')
    return int(match[1]) * _BYTES[match[2]]


def _check_duration(value: str) -> str:
    seconds(value)
    return value


def _check_size(value: str) -> str:
    bytes_of(value)
    return value


Duration = Annotated[
    str, AfterValidator(_check_duration), Field(pattern=r"^\d{1,9}(\.\d{1,3})?(ms|s|m|h|d)$", examples=["30s", "15m"])
]
Size = Annotated[str, AfterValidator(_check_size), Field(pattern=r"^\d{1,12}([KMGT]i?)?B$", examples=["20GiB"])]
