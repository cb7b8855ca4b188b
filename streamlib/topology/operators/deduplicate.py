"""Dropping repetitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec


class Deduplicate(msgspec.Struct, frozen=True):
    """Drops a record if one with the same id was let through at most `within_ms` before or after its time.

    Attributes:
        seen: the window store of what was let through: rows by id, at their records' times.
        within_ms: how far apart repetitions may be, inclusive.
        id_selector: `id_selector(key, value)`; ids are then compared among records of one key. None: the id is the key.
    """

    seen: str
    within_ms: int
    id_selector: Callable[[Any, Any], Any] | None = None
