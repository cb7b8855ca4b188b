"""Joins of two streams.

    left  --window--> join with right's store --+--> merge
    right --window--> join with left's store  --+        records are joined first and kept after that

In a left or outer join a record without a match waits in a store that both sides share, by time, side and key, until
nothing can match it any more. Sources: `KStreamJoinWindow`, `KStreamKStreamJoin`, `KStreamKStreamSelfJoin` of Kafka
Streams 4.3; null keys KIP-962.

    waiting row     8 bytes time + 1 byte (0 right, 1 left) + key   ->   a list of (1 byte side + value), see `_packed`
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any

from streamlib.engine.cursor import END_OF_TIME, StreamTime
from streamlib.engine.inputs import NodeFn
from streamlib.engine.operators.site import OpenStore, Site, store_error, user_error
from streamlib.records import Headers
from streamlib.topology import operators as op

_PLACE = Struct(">qB")
_LENGTH = Struct(">i")
_RIGHT, _LEFT = 0, 1


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
        return _corrected(operator, site, _shared_waiting(operator, site))
    return _eager(operator, site) if operator.outer else _inner(operator, site)


def compile_stream_self_join(operator: op.StreamSelfJoin, site: Site) -> NodeFn:
    """As left, then as right side; the match with itself comes where it would be found, if it would be."""
    store = site.store(operator.store)
    fetch, would_be_seen, decode = store.rows.fetch, store.rows.would_be_seen, store.spec.value.decode
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
        met_itself = not would_be_seen(timestamp)
        for at, row in fetch(raw_key, max(0, timestamp - after_ms), max(0, timestamp + before_ms)):
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
    outer, side, other_side = operator.outer, int(operator.is_left), int(not operator.is_left)
    store = _other_store(operator, site)
    fetch, decode = store.rows.fetch, store.spec.value.decode
    before_ms, after_ms = operator.before_ms, operator.after_ms
    check_ms = after_ms + operator.grace_ms
    forward, cursor, encode_key = site.forward, site.work.cursor, _key_encoder(site, store)
    join, join_sides = _own_first(operator, site), _joining(operator, site)
    clock = waiting.clock

    def release(timestamp: int, headers: Headers) -> None:
        for at, released, key, value in waiting.pop_closed(timestamp):
            left, right = (value, None) if released == _LEFT else (None, value)
            forward(key, join_sides(key, left, right), at, headers)

    def node(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
        if timestamp > clock.ms:
            clock.ms = timestamp
        if value is None or (key is None and not outer):
            cursor.dropped += 1
            return
        if key is None:
            forward(key, join(key, value, None), timestamp, headers)
            return
        if timestamp == clock.ms and waiting.earliest + check_ms < timestamp:
            release(timestamp, headers)
        raw_key = encode_key(key)
        matched = False
        for at, row in fetch(raw_key, max(0, timestamp - before_ms), max(0, timestamp + after_ms)):
            matched = True
            waiting.forget(other_side, at, raw_key, timestamp)
            forward(key, join(key, value, decode(row)), max(at, timestamp), headers)
        if matched or not outer:
            return
        if timestamp + after_ms < clock.ms:
            forward(key, join(key, value, None), timestamp, headers)
        else:
            waiting.add(side, timestamp, raw_key, value)

    return node


class _Waiting:
    """The records of both sides that have found no match so far; both sides share it.

    `earliest` says whether it is worth looking at them.
    """

    def __init__(self, operator: op.StreamStreamJoin, site: Site, clock: StreamTime) -> None:
        assert operator.waiting is not None
        right, left = site.store(operator.right_store).spec, site.store(operator.left_store).spec
        after_left = operator.after_ms if operator.is_left else operator.before_ms
        after_right = operator.before_ms if operator.is_left else operator.after_ms
        self.clock = clock
        self._overlay = site.store(operator.waiting).overlay
        self._wait_ms = (after_right + operator.grace_ms, after_left + operator.grace_ms)  # by side
        self._specs = (right, left)
        self._name = site.name
        self.earliest = self._first_time()

    def add(self, side: int, timestamp: int, key: bytes, value: Any) -> None:
        """A record waits; several of one key, time and side in the order they came."""
        spec = self._specs[side]
        try:
            raw = bytes((side,)) + spec.value.encode(value)
        except Exception as error:
            raise store_error(self._name, spec, key, value, error) from error
        place = _PLACE.pack(timestamp, side) + key
        before = self._overlay.get(place)
        self._overlay.put_at(place, _packed([*([] if before is None else _unpacked(before)), raw]), self.clock.ms)
        self.earliest = min(self.earliest, timestamp)

    def forget(self, side: int, timestamp: int, key: bytes, now: int) -> None:
        """Records have found a match: all of this key, time and side."""
        place = _PLACE.pack(timestamp, side) + key
        if self._overlay.get(place) is not None:
            self._overlay.delete(place, now)

    def pop_closed(self, now: int) -> list[tuple[int, int, Any, Any]]:
        """Take out what nothing can match any more: time, side, key, value, the earliest first, right before left."""
        closed = list(self._closed())
        for place, _ in closed:
            self._overlay.delete(place, now)
        return [record for place, row in closed for record in self._records(place, row)]

    def _closed(self) -> Iterator[tuple[bytes, bytes]]:
        """Looks until both sides have one that is still open. `earliest` becomes the time of the last one looked at, as
        in Kafka Streams: others may then come out a record later than they could."""
        self.earliest = END_OF_TIME
        open_sides: set[int] = set()
        for place, row in self._overlay.scan():
            timestamp, side = _PLACE.unpack_from(place)
            self.earliest = timestamp
            if len(open_sides) == len(self._wait_ms):
                return
            if timestamp + self._wait_ms[side] < self.clock.ms:
                yield place, row
            else:
                open_sides.add(side)

    def _records(self, place: bytes, row: bytes) -> Iterator[tuple[int, int, Any, Any]]:
        timestamp, side = _PLACE.unpack_from(place)
        spec = self._specs[side]
        key = spec.key.decode(place[_PLACE.size :])
        for raw in _unpacked(row):
            yield timestamp, side, key, spec.value.decode(raw[1:])

    def _first_time(self) -> int:
        first = next(self._overlay.scan(), None)
        return END_OF_TIME if first is None else _PLACE.unpack_from(first[0])[0]


def _shared_waiting(operator: op.StreamStreamJoin, site: Site) -> _Waiting:
    """The two sides are compiled one after the other; the first makes what they share."""
    assert operator.waiting is not None
    shared = site.work.shared
    if operator.waiting not in shared:
        clock = site.work.stream_times.setdefault(operator.waiting, StreamTime())
        shared[operator.waiting] = _Waiting(operator, site, clock)
    waiting = shared[operator.waiting]
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


def _packed(values: list[bytes]) -> bytes:
    """A list as Kafka's `ListSerde` writes one of elements of varying length: a byte 1, their number, then each with
    its length in front."""
    return b"".join([b"\x01", _LENGTH.pack(len(values)), *(_LENGTH.pack(len(raw)) + raw for raw in values)])


def _unpacked(data: bytes) -> list[bytes]:
    at = 1 + _LENGTH.size
    values = []
    for _ in range(_LENGTH.unpack_from(data, 1)[0]):
        length = _LENGTH.unpack_from(data, at)[0]
        at += _LENGTH.size
        values.append(data[at : at + length])
        at += length
    return values
