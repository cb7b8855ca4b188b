"""Joins of two streams.

    left  --window--> join with right's store --+--> merge
    right --window--> join with left's store  --+        records are joined first and kept after that

In a left or outer join a record without a match waits in a store that both sides share (`state/join_buffer.py`) until
nothing can match it any more. Sources: `KStreamJoinWindow`, `KStreamKStreamJoin`, `KStreamKStreamSelfJoin` of Kafka
Streams 4.3; null keys KIP-962.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from streamlib.engine.cursor import NO_TIME, StreamTime
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import OpenStore, Site, store_error, user_error
from streamlib.records import Headers
from streamlib.state.join_buffer import JoinBuffer, values_of
from streamlib.topology import operators as op


def compile_stream_join_window(operator: op.StreamJoinWindow, site: Site) -> NodeFn:
    """The join sees a record before it is kept. Null keys and values are never found, so they are not kept."""
    store = site.store(operator.store)
    name, spec, forward, put = site.name, store.spec, site.forward, store.rows.put_row
    encode_key, encode = spec.key.encode, spec.value.encode

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        forward(key, value, timestamp, headers)
        if key is None or value is None:
            return
        try:
            raw_key, row = encode_key(key), encode(value)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        put(raw_key, timestamp, row, timestamp)

    return node


def compile_stream_stream_join(operator: op.StreamStreamJoin, site: Site) -> NodeFn:
    """Inner joins need no notion of time; the outer side of the others emits what found nothing."""
    if operator.waiting is not None:
        return _corrected(operator, site, _shared(operator.waiting, operator, site))
    return _eager(operator, site) if operator.outer else _inner(operator, site)


def compile_stream_self_join(operator: op.StreamSelfJoin, site: Site) -> NodeFn:
    """As left, then as right side; the match with itself comes where it would be found, if it would be."""
    store = site.store(operator.store)
    fetch, observe, would_be_seen = store.rows.fetch, store.rows.observe, store.rows.would_be_seen
    decode = store.spec.value.decode
    before_ms, after_ms = operator.before_ms, operator.after_ms
    forward, cursor, encode_key = site.forward, site.work.cursor, _key_encoder(site, store)
    join = _joining(operator, site)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        raw_key = encode_key(key)
        for at, row in fetch(raw_key, max(0, timestamp - before_ms), max(0, timestamp + after_ms)):
            forward(key, join(key, value, decode(row)), max(at, timestamp), headers)
        observe(timestamp)  # the left side would have kept it by now
        first, last = max(0, timestamp - after_ms), max(0, timestamp + before_ms)
        met_itself = not (first <= timestamp <= last and would_be_seen(timestamp))
        for at, row in fetch(raw_key, first, last):
            if at > timestamp and not met_itself:
                met_itself = True
                forward(key, join(key, value, value), timestamp, headers)
            forward(key, join(key, decode(row), value), max(at, timestamp), headers)
        if not met_itself:
            forward(key, join(key, value, value), timestamp, headers)

    return node


def _inner(operator: op.StreamStreamJoin, site: Site) -> NodeFn:
    store = _other_store(operator, site)
    fetch, decode = store.rows.fetch, store.spec.value.decode
    before_ms, after_ms = operator.before_ms, operator.after_ms
    forward, cursor, encode_key = site.forward, site.work.cursor, _key_encoder(site, store)
    join = _own_first(operator, site)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if key is None or value is None:
            cursor.dropped += 1
            return
        for at, row in fetch(encode_key(key), max(0, timestamp - before_ms), max(0, timestamp + after_ms)):
            forward(key, join(key, value, decode(row)), at if at > timestamp else timestamp, headers)

    return node


def _eager(operator: op.StreamStreamJoin, site: Site) -> NodeFn:
    """What finds no match is emitted at once, and never corrected: as before Kafka Streams 3.1."""
    store = _other_store(operator, site)
    fetch, decode = store.rows.fetch, store.spec.value.decode
    before_ms, after_ms = operator.before_ms, operator.after_ms
    forward, cursor, encode_key = site.forward, site.work.cursor, _key_encoder(site, store)
    join = _own_first(operator, site)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if value is None:
            cursor.dropped += 1
            return
        matched = False
        if key is not None:
            for at, row in fetch(encode_key(key), max(0, timestamp - before_ms), max(0, timestamp + after_ms)):
                matched = True
                forward(key, join(key, value, decode(row)), max(at, timestamp), headers)
        if not matched:
            forward(key, join(key, value, None), timestamp, headers)

    return node


def _corrected(operator: op.StreamStreamJoin, site: Site, waiting: _Waiting) -> NodeFn:
    """Either side of a join in which records wait; only those of an outer side do."""
    outer, other_outer, side = operator.outer, operator.other_outer, int(operator.is_left)
    store = _other_store(operator, site)
    fetch, decode, discard = store.rows.fetch, store.spec.value.decode, waiting.buffer.discard
    before_ms, after_ms = operator.before_ms, operator.after_ms
    check_ms = after_ms + operator.grace_ms
    forward, cursor, encode_key = site.forward, site.work.cursor, _key_encoder(site, store)
    join, clock, earliest = _own_first(operator, site), waiting.clock, waiting.earliest
    wait = _adding(operator, site, waiting)

    def release(now: int, headers: Headers) -> None:
        for at, released, key, value in waiting.take_closed(now):
            joined = join(key, value, None) if released == side else join(key, None, value)
            forward(key, joined, at, headers)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if timestamp > clock.ms:
            clock.ms = timestamp
        if value is None or (key is None and not outer):
            cursor.dropped += 1
            return
        if key is None:
            forward(key, join(key, value, None), timestamp, headers)
            return
        if timestamp == clock.ms and NO_TIME < earliest.ms < timestamp - check_ms:
            release(timestamp, headers)
        raw_key, last, matched = encode_key(key), max(0, timestamp + after_ms), False
        for at, row in fetch(raw_key, max(0, timestamp - before_ms), last):
            matched = True
            if other_outer:
                discard(at, 1 - side, raw_key, timestamp)
            forward(key, join(key, value, decode(row)), max(at, timestamp), headers)
        if matched or not outer:
            return
        if last < clock.ms:
            forward(key, join(key, value, None), timestamp, headers)
        else:
            wait(key, raw_key, value, timestamp)

    return node


def _adding(operator: op.StreamStreamJoin, site: Site, waiting: _Waiting) -> Callable[[Any, bytes, Any, int], None]:
    """f(key, encoded key, value, time): a record of this side waits."""
    spec = site.store(operator.left_store if operator.is_left else operator.right_store).spec
    name, encode, side, add = site.name, spec.value.encode, int(operator.is_left), waiting.add

    def wait(key: Any, raw_key: bytes, value: Any, timestamp: int) -> None:
        try:
            raw = encode(value)
        except Exception as error:
            raise store_error(name, spec, key, value, error) from error
        add(timestamp, side, raw_key, raw)

    return wait


class _Waiting:
    """The records of both sides that have found no match so far; the two nodes share it.

    `clock` is the join's stream time. `earliest` tells whether it is worth looking for records that are to go on:
    NO_TIME if none waits. When it was looked, it is the time of the last one that was looked at, as in Kafka Streams
    (`TimeTracker.minTime`), so others may go on a record later than they could. Both are committed with the offsets:
    what goes on when does not depend on restarts.
    """

    def __init__(self, store: str, operator: op.StreamStreamJoin, site: Site) -> None:
        right, left = site.store(operator.right_store).spec, site.store(operator.left_store).spec
        after_left = operator.after_ms if operator.is_left else operator.before_ms
        after_right = operator.before_ms if operator.is_left else operator.after_ms
        times = site.work.stream_times
        self.clock = times.setdefault(store, StreamTime())
        self.earliest = times.setdefault(f"{store}-earliest", StreamTime())
        self.buffer = JoinBuffer(site.store(store).overlay)
        self._wait_ms = (after_right + operator.grace_ms, after_left + operator.grace_ms)  # by side
        self._specs = (right, left)
        if self.earliest.ms == NO_TIME:
            self._note(self.buffer.first_time())  # of a store whose offsets somebody else has committed

    def add(self, timestamp: int, side: int, key: bytes, value: bytes) -> None:
        """A record waits; several of one key, time and side in the order they came."""
        self.buffer.add(timestamp, side, key, value)
        self._note(timestamp)

    def take_closed(self, now: int) -> Iterator[tuple[int, int, Any, Any]]:
        """Time, side, key and value of what nothing can match any more, the earliest first, right before left.

        They are taken out one after the other: if the joiner raises, those behind are still there.
        """
        for timestamp, side, raw_key, row in self._closed():
            self.buffer.delete(timestamp, side, raw_key, now)
            spec = self._specs[side]
            key = spec.key.decode(raw_key)
            for raw in values_of(row):
                yield timestamp, side, key, spec.value.decode(raw)

    def _closed(self) -> Iterator[tuple[int, int, bytes, bytes]]:
        """Looks until there was one of each side that is still open."""
        now = self.clock.ms
        open_sides: set[int] = set()
        self.earliest.ms = NO_TIME
        for timestamp, side, key, row in self.buffer.rows():
            self.earliest.ms = timestamp
            if len(open_sides) == len(self._wait_ms):
                return
            if timestamp + self._wait_ms[side] < now:
                yield timestamp, side, key, row
            else:
                open_sides.add(side)

    def _note(self, timestamp: int | None) -> None:
        if timestamp is not None and (self.earliest.ms == NO_TIME or timestamp < self.earliest.ms):
            self.earliest.ms = timestamp


def _shared(store: str, operator: op.StreamStreamJoin, site: Site) -> _Waiting:
    """The two sides are compiled one after the other; the first makes what they share."""
    shared = site.work.shared
    if store not in shared:
        shared[store] = _Waiting(store, operator, site)
    waiting = shared[store]
    assert isinstance(waiting, _Waiting)
    return waiting


def _other_store(operator: op.StreamStreamJoin, site: Site) -> OpenStore:
    return site.store(operator.right_store if operator.is_left else operator.left_store)


def _key_encoder(site: Site, store: OpenStore) -> Callable[[Any], bytes]:
    name, spec = site.name, store.spec
    encode_key = spec.key.encode

    def encode(key: Any) -> bytes:
        try:
            return encode_key(key)
        except Exception as error:
            raise store_error(name, spec, key, None, error) from error

    return encode


def _joining(operator: op.StreamStreamJoin | op.StreamSelfJoin, site: Site) -> Callable[[Any, Any, Any], Any]:
    """f(key, left, right), with errors that name the node."""
    joiner, with_key, name = operator.joiner, operator.with_key, site.name

    def join(key: Any, left: Any, right: Any) -> Any:
        try:
            return joiner(key, left, right) if with_key else joiner(left, right)
        except Exception as error:
            raise user_error(name, key, error) from error

    return join


def _own_first(operator: op.StreamStreamJoin, site: Site) -> Callable[[Any, Any, Any], Any]:
    """f(key, value of this side, value of the other side)."""
    join = _joining(operator, site)
    return join if operator.is_left else lambda key, own, other: join(key, other, own)
