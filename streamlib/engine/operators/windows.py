"""Folding a stream into windows of time.

    record --> its windows --open----> folded into the window's row --> change      (emit on update)
                           --closed--> late: counted, `on_late` is told
    stream time moves on ------------> the rows of windows it closes, once each     (emit on close, `closing.py`)

The operator's stream time is the highest time of a record with a key. A window is closed when it lies behind stream
time by its grace (`KStreamWindowAggregate`); sliding windows are in `sliding.py`. Several operators may fold into one
store, each by its own stream time: that is how cogroups are made.
"""

from __future__ import annotations

from struct import Struct
from typing import Any, assert_never

from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.closing import Closing, Release, released_when_closed
from streamlib.engine.operators.idle import closed_when_idle
from streamlib.engine.operators.in_window import folder_into, late_reporter, new_windowed
from streamlib.engine.operators.site import Site, store_error
from streamlib.engine.operators.sliding import in_sliding_windows
from streamlib.records import Headers
from streamlib.serdes import Serdes
from streamlib.state.window import WindowRows
from streamlib.topology import operators as op
from streamlib.topology.nodes import StoreSpec, WindowStoreSpec
from streamlib.windows import END_OF_TIME_MS, SlidingWindows, TimeWindows, UnlimitedWindows

_COUNT_ROW = Struct(">qq")  # a timestamped row of a long


def compile_windowed_fold(operator: op.WindowedFold, site: Site) -> NodeFn:
    """The fold, and around it what releases windows when they close."""
    windows = operator.windows
    match windows:
        case TimeWindows(size_ms=size, advance_ms=advance, grace_ms=grace):
            node, closing = _in_time_windows(operator, windows, site), Closing(size + grace, advance, size)
        case SlidingWindows(difference_ms=size, grace_ms=grace):
            node, closing = in_sliding_windows(operator, windows, site), Closing(size + grace + 1, 1, size)
        case UnlimitedWindows():
            return _in_unlimited_windows(operator, windows, site)
        case _:
            assert_never(windows)
    if not operator.on_close:
        return node
    release = Release(operator.store, closing, site)
    node = released_when_closed(node, release, site)
    timeout_ms = operator.idle_timeout_ms
    return node if timeout_ms is None else closed_when_idle(node, release, timeout_ms, site)


def _in_time_windows(operator: op.WindowedFold, windows: TimeWindows, site: Site) -> NodeFn:
    if windows.advance_ms < windows.size_ms:
        return _in_hopping_windows(operator, windows, site)
    if _counts_longs(operator, site.store(operator.store).spec):
        return _count_longs_in_tumbling_windows(operator, windows, site)
    return _in_tumbling_windows(operator, windows, site)


def _in_hopping_windows(operator: op.WindowedFold, windows: TimeWindows, site: Site) -> NodeFn:
    """A record updates its windows from the earliest on; each may be closed or not."""
    name, cursor, time, store = site.name, site.work.cursor, site.stream_time(), site.store(operator.store)
    size, grace, starts = windows.size_ms, windows.grace_ms, windows.starts
    fold_into, late = folder_into(operator, site, size), late_reporter(operator, site, time, size)
    spec, encode_key, read = store.spec, store.spec.key.encode, store.rows.row

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        if timestamp > time.ms:
            time.ms = timestamp
        last_closed = time.ms - grace - size
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        for start in starts(timestamp):
            if start > last_closed:
                fold_into(start, read(raw_key, start), raw_key, key, value, timestamp, headers)
            else:
                late(start, key, value, timestamp)

    return node


def _in_tumbling_windows(operator: op.WindowedFold, windows: TimeWindows, site: Site) -> NodeFn:
    """As hopping windows, without a loop."""
    name, cursor, time, store = site.name, site.work.cursor, site.stream_time(), site.store(operator.store)
    size, closing = windows.size_ms, windows.size_ms + windows.grace_ms
    fold_into, late = folder_into(operator, site, size), late_reporter(operator, site, time, size)
    spec, encode_key, read = store.spec, store.spec.key.encode, store.rows.row

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        if timestamp > time.ms:
            time.ms = timestamp
        start = timestamp - timestamp % size
        if start <= time.ms - closing:
            late(start, key, value, timestamp)
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        fold_into(start, read(raw_key, start), raw_key, key, value, timestamp, headers)

    return node


def _in_unlimited_windows(operator: op.WindowedFold, windows: UnlimitedWindows, site: Site) -> NodeFn:
    """Records from before the start belong to no window, which is not the same as being late."""
    name, cursor, store, start = site.name, site.work.cursor, site.store(operator.store), windows.start_ms
    fold_into = folder_into(operator, site, END_OF_TIME_MS - start)
    spec, encode_key, read = store.spec, store.spec.key.encode, store.rows.row

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None:
            cursor.dropped += 1
            return
        if timestamp < start:
            return
        try:
            raw_key = encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        fold_into(start, read(raw_key, start), raw_key, key, value, timestamp, headers)

    return node


def _counts_longs(operator: op.WindowedFold, spec: StoreSpec) -> bool:
    """Whether the commonest aggregation can be the quickest: each update emitted, rows of a long."""
    assert isinstance(spec, WindowStoreSpec), f"store {spec.name} keeps no windows"
    is_count = isinstance(operator.fold, op.StreamCount) and spec.value == Serdes.long()
    return is_count and not operator.on_close and not spec.time_ordered


def _count_longs_in_tumbling_windows(operator: op.WindowedFold, windows: TimeWindows, site: Site) -> NodeFn:
    """Reads and writes a row in one step each, at a place of which all but the key stays the same for a window."""
    name, forward, cursor, store = site.name, site.forward, site.work.cursor, site.store(operator.store)
    time, size, closing = site.stream_time(), windows.size_ms, windows.size_ms + windows.grace_ms
    late, sends_old = late_reporter(operator, site, time, size), site.sends_old_values
    no_row = None if site.cached else 0
    rows: WindowRows = store.rows
    spec, encode_key, around, observe = store.spec, store.spec.key.encode, rows.around, rows.observe
    get, put, pack, unpack = store.overlay.get, store.overlay.put, _COUNT_ROW.pack, _COUNT_ROW.unpack
    window, before, after = -1, b"", b""  # the window of the last record: what is before and after keys in it

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        nonlocal window, before, after
        if key is None:
            cursor.dropped += 1
            return
        if timestamp > time.ms:
            time.ms = timestamp
        start = timestamp - timestamp % size
        if start <= time.ms - closing:
            late(start, key, value, timestamp)
            return
        if start != window:
            observe(start)
            before, after = around(start)
            window = start
        try:
            place = before + encode_key(key) + after
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        row = get(place)
        count, old = 0, no_row
        if row is not None:
            stored, count = unpack(row)
            old = count
            if stored > timestamp:
                timestamp = stored
        put(place, pack(timestamp, count + 1))
        forward(new_windowed((key, start, start + size)), (count + 1, old if sends_old else None), timestamp, headers)

    return node
