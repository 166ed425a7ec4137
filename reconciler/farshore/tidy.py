"""Keeps the collector of cycles from stopping everything.

Ten thousand pairs are a million objects that live for long; a full pass over them takes a second, in which no visit, no
socket and no request has its turn. Almost everything dies by reference count here, so what has survived a few seconds
is set aside (`gc.freeze`) and full passes only see what is younger. What dies in cycles after it was set aside is found
by a rare full pass.
"""

import gc
from typing import Final

TIDY_SECONDS: Final = 5.0
FULL_AFTER: Final = 2000  # times: a pass over everything about every three hours


class Tidy:
    """Call it every `TIDY_SECONDS`."""

    def __init__(self) -> None:
        self._times = 0

    def __call__(self) -> None:
        """Collect what is young and set the survivors aside."""
        self._times += 1
        if self._times % FULL_AFTER == 0:
            gc.unfreeze()
        gc.collect()
        gc.freeze()
