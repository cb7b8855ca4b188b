"""Holding changes of a table back."""

from __future__ import annotations

import msgspec


class Suppress(msgspec.Struct, frozen=True):
    """Keeps changes of `table` in `buffer` until they are due; a later change of a key replaces the one that waits.

    Attributes:
        table: the name of the table node above.
        buffer: the store they wait in.
        wait_ms: how long: from the time of a key's first change that waits, or from the end of its window.
        until_window_closes: keys are windowed and wait from their windows' end; deletes are not passed on.
        max_records: how many keys may wait; None: any number.
        max_bytes: how much what waits may weigh; None: any amount.
        shut_down: over one of these bounds the task fails; if not, the oldest are passed on early.
    """

    table: str
    buffer: str
    wait_ms: int
    until_window_closes: bool
    max_records: int | None = None
    max_bytes: int | None = None
    shut_down: bool = False
