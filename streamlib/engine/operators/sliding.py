"""Folding a stream into sliding windows, `[start, start + difference]` with both ends inclusive (KIP-450).

There is a window for each set of records of a key that fit into one. A record at `t` makes at most three new ones: the
left window `[t - d, t]`, the right window `[t + 1, t + 1 + d]` if later records lie in it, and the right window of the
record before it, if that had none. What is in them beside the record is copied from windows that are there:

    record before          t            later record
    ------|----------------|-----------------|------
          [ right window of the record before ]
    [     left window      ][   right window  ]

Times below `d` have no left window of their own, since no window starts before zero: they share `[0, d]`. Which
windows are made, and in which order changes go on, is as in `KStreamSlidingWindowAggregate`; so are old values, which a
window that is copied from another has from there.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.in_window import folder_into, late_reporter, new_windowed
from streamlib.engine.operators.site import Site, store_error, user_error
from streamlib.records import Headers
from streamlib.state.codec import unpack_timestamp
from streamlib.state.window import WindowRows
from streamlib.topology import operators as op
from streamlib.windows import SlidingWindows

Arrived: TypeAlias = tuple[bytes, Any, Any, int, Headers]
"""A record: its key encoded, its key, value, timestamp, headers."""


def in_sliding_windows(operator: op.WindowedFold, windows: SlidingWindows, site: Site) -> NodeFn:
    """Null values are dropped, other than in windows of fixed times. A record is late as a whole if even the last
    window it could be in is closed."""
    name, cursor, time, spec = site.name, site.work.cursor, site.stream_time(), site.store(operator.store).spec
    difference, grace = windows.difference_ms, windows.grace_ms
    fold = _SlidingFold(operator, windows, site)
    encode_key, late = spec.key.encode, fold.late

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        if timestamp > time.ms:
            time.ms = timestamp
        fold.first_open = time.ms - grace - difference
        if timestamp < fold.first_open:
            late(timestamp, key, value, timestamp)
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        if timestamp < difference:
            fold.early((raw_key, key, value, timestamp, headers))
        else:
            fold.usual((raw_key, key, value, timestamp, headers))

    return node


class _SlidingFold:
    """Folds one record at a time. `first_open`: windows that start before are closed."""

    def __init__(self, operator: op.WindowedFold, windows: SlidingWindows, site: Site) -> None:
        store = site.store(operator.store)
        self.first_open = 0
        self.late = late_reporter(operator, site, site.stream_time(), windows.difference_ms)
        self._rows: WindowRows = store.rows
        self._difference = windows.difference_ms
        self._site = site
        self._emits = not operator.on_close
        self._decode = store.spec.value.decode
        self._fold_into = folder_into(operator, site, windows.difference_ms)
        self._fold_into_new = self._fold_into
        if site.cached:  # in front of a cache, only a row that was there gives an old value
            silent = msgspec.structs.replace(site, sends_old_values=False)
            self._fold_into_new = folder_into(operator, silent, windows.difference_ms)

    def usual(self, record: Arrived) -> None:
        """A record that has a left window of its own: from the latest window it can have to do with to the earliest."""
        raw_key, at, difference = record[0], record[3], self._difference
        containing = before = previous = (
            None  # rows of windows that end after and before `at`; time of the record before
        )
        has_left, starts = False, set()
        for start, row in self._rows.fetch(raw_key, max(0, at - 2 * difference), at + 1, reverse=True):
            starts.add(start)
            if start > at:
                continue
            last = unpack_timestamp(row)[0]
            end = start + difference
            if end < at:
                before, previous = row, last
                break
            self._update(start, row, record)
            if end > at:
                containing = containing or row
            elif last < at:
                has_left, previous = True, last
            else:
                return  # another record with this time has made all windows there are to make
        if previous is not None and previous + 1 not in starts and previous + 1 + difference >= at:
            self._create(previous + 1, None, record)
        if not has_left:
            in_reach = previous is not None and previous >= at - difference
            self._create(at - difference, before if in_reach else None, record)
        if at + 1 not in starts:
            self._create_right(containing, record)

    def early(self, record: Arrived) -> None:
        """A record whose left window would start before zero."""
        raw_key, at = record[0], record[3]
        containing = shared = previous = None
        starts = set()
        for start, row in self._rows.fetch(raw_key, 0, at + 1):
            starts.add(start)
            if start == 0:
                shared = row
                last = unpack_timestamp(row)[0]
                previous = last if last < at else None
            elif start <= at:
                containing = row
                self._update(start, row, record)
        if at + 1 not in starts:
            # Without another window that reaches beyond `at`, all that is in the shared one comes later.
            self._create_right(containing or shared, record)
        if previous is not None and previous + 1 not in starts:
            self._create(previous + 1, None, record)
        if shared is None:
            self._create(0, None, record)
        else:
            self._update(0, shared, record)

    def _update(self, start: int, row: bytes, record: Arrived) -> None:
        """Fold the record into a window that is there, if it is open."""
        if start >= self.first_open:
            self._fold_into(start, row, *record)
        else:
            self.late(start, *record[1:4])

    def _create(self, start: int, row: bytes | None, record: Arrived) -> None:
        """Fold the record into a new window, on top of what is copied from another."""
        if start >= self.first_open:
            self._fold_into_new(start, row, *record)
        else:
            self.late(start, *record[1:4])

    def _create_right(self, row: bytes | None, record: Arrived) -> None:
        """Make the record's right window, which it does not lie in itself, if there is something later to be in it."""
        raw_key, key, _, at, headers = record
        if row is None or (last := unpack_timestamp(row)[0]) <= at:
            return
        self._rows.put_row(raw_key, at + 1, row, at)
        if not self._emits:
            return
        try:
            value = self._decode(row[8:])
        except Exception as error:
            raise user_error(self._site.name, key, error) from error
        self._site.forward(new_windowed((key, at + 1, at + 1 + self._difference)), (value, None), last, headers)
