"""One record and one window: folding the record into the window's row, or saying that it is late."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

from streamlib.engine.cursor import StreamTime
from streamlib.engine.operators.folding import folding_of, row_folder
from streamlib.engine.operators.site import OpenStore, Site, TableRow, TableRows, user_error
from streamlib.engine.operators.table import lookup_error
from streamlib.records import Headers
from streamlib.state.codec import unpack_timestamp
from streamlib.state.window import WindowRows
from streamlib.topology import operators as op
from streamlib.windows import LateRecord, Window, Windowed

FoldInto: TypeAlias = Callable[[int, bytes | None, bytes, Any, Any, int, Headers], None]
"""f(window start, the row to fold into or None, encoded key, key, value, timestamp, headers)."""

Late: TypeAlias = Callable[[int, Any, Any, int], None]
"""f(window start, key, value, timestamp): the window was closed when the record came."""

new_windowed: Callable[[tuple[Any, int, int]], Windowed[Any]] = partial(tuple.__new__, Windowed)
"""`Windowed(*fields)` without the detour through Python code."""


def folder_into(operator: op.WindowedFold, site: Site, size_ms: int) -> FoldInto:
    """Folds a record into the row of a window, writes the row and, if updates are emitted, forwards the change."""
    store = site.store(operator.store)
    rows: WindowRows = store.rows
    fold, put_row = row_folder(folding_of(operator.fold), site, store.spec), rows.put_row
    forward, emits = site.forward, not operator.on_close

    def fold_into(
        start: int, row: bytes | None, raw_key: bytes, key: Any, value: Any, timestamp: int, headers: Headers
    ) -> None:
        row, change, result_time = fold(key, value, timestamp, row)
        put_row(raw_key, start, row, timestamp)
        if emits:
            forward(new_windowed((key, start, start + size_ms)), change, result_time, headers)

    return fold_into


def late_reporter(operator: op.WindowedFold, site: Site, time: StreamTime, size_ms: int) -> Late:
    """Counts what is late, and tells the user's `on_late`."""
    name, cursor, on_late = site.name, site.work.cursor, operator.on_late

    def count(start: int, key: Any, value: Any, timestamp: int) -> None:
        cursor.dropped += 1

    def tell(start: int, key: Any, value: Any, timestamp: int) -> None:
        assert on_late is not None
        cursor.dropped += 1
        try:
            on_late(LateRecord(key, value, timestamp, Window(start, start + size_ms), time.ms))
        except Exception as error:
            raise user_error(name, key, error) from error

    return count if on_late is None else tell


def windowed_rows(store: OpenStore) -> TableRows:
    """The rows of a table of windows, by windowed key."""
    spec, rows = store.spec, store.rows
    encode_key, decode, read = spec.key.encode, spec.value.decode, rows.row

    def found(windowed: Windowed[Any]) -> bytes | None:
        row: bytes | None = read(encode_key(windowed.key), windowed.start)
        return row

    def value(windowed: Any) -> Any:
        try:
            row = found(windowed)
            return None if row is None else decode(row[8:])
        except Exception as error:
            raise lookup_error(spec, windowed, error) from error

    def row(windowed: Any) -> TableRow | None:
        try:
            row = found(windowed)
            return None if row is None else (decode(row[8:]), unpack_timestamp(row)[0])
        except Exception as error:
            raise lookup_error(spec, windowed, error) from error

    return TableRows(value, row)
