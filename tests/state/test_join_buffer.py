"""Records of joins that wait: their bytes are Kafka Streams', their order is that in which they go on."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from streamlib.serdes import Serdes
from streamlib.state.join_buffer import LEFT, RIGHT, JoinBuffer, values_of
from streamlib.state.memory import InMemoryBackend
from streamlib.state.overlay import Overlay
from streamlib.state.stores import open_rows
from streamlib.topology.nodes import StoreSpec

SPEC = StoreSpec(name="waiting", kind="key_value", key=Serdes.bytes(), value=Serdes.bytes())


def waiting(buffer: JoinBuffer) -> list[tuple[int, int, bytes, list[bytes]]]:
    return [(time, side, key, values_of(row)) for time, side, key, row in buffer.rows()]


def test_rows_and_changelog_records_are_written_as_kafka_streams_does() -> None:
    overlay = Overlay(SPEC.name, InMemoryBackend())
    buffer = JoinBuffer(overlay)
    buffer.add(7, LEFT, b"k", b"one")
    buffer.add(7, LEFT, b"k", b"two!")
    buffer.add(8, RIGHT, b"k", b"")
    buffer.delete(9, LEFT, b"gone", 12)
    records = open_rows(SPEC, overlay).changelog_records()
    assert records == [
        (struct.pack(">qB", 7, 1) + b"k", struct.pack(">Bii4si5s", 1, 2, 4, b"\1one", 5, b"\1two!"), 7, ()),
        (struct.pack(">qB", 8, 0) + b"k", struct.pack(">Bii1s", 1, 1, 1, b"\0"), 8, ()),
        (struct.pack(">qB", 9, 1) + b"gone", None, 12, ()),
    ]


def test_the_order_is_time_then_right_before_left_then_key_then_arrival() -> None:
    buffer = JoinBuffer(Overlay(SPEC.name, InMemoryBackend()))
    assert buffer.first_time() is None
    for time, side, key, value in [(2, LEFT, b"a", b"1"), (2, RIGHT, b"b", b"2"), (1, LEFT, b"z", b"3")]:
        buffer.add(time, side, key, value)
    buffer.add(2, LEFT, b"a", b"4")
    assert waiting(buffer) == [
        (1, LEFT, b"z", [b"3"]),
        (2, RIGHT, b"b", [b"2"]),
        (2, LEFT, b"a", [b"1", b"4"]),
    ]
    assert buffer.first_time() == 1


def test_discarding_what_does_not_wait_writes_nothing() -> None:
    overlay = Overlay(SPEC.name, InMemoryBackend())
    buffer = JoinBuffer(overlay)
    buffer.discard(1, LEFT, b"a", 5)
    assert overlay.changes == {}
    buffer.add(1, LEFT, b"a", b"1")
    buffer.discard(1, RIGHT, b"a", 5)
    buffer.discard(1, LEFT, b"a", 5)
    assert waiting(buffer) == []
    assert list(overlay.timestamps.values()) == [5]


def test_rows_may_be_deleted_while_they_are_read() -> None:
    buffer = JoinBuffer(Overlay(SPEC.name, InMemoryBackend()))
    for time in range(300):
        buffer.add(time, time % 2, b"k", b"v")
    for time, side, key, _ in buffer.rows():
        if time % 3:
            buffer.delete(time, side, key, 300)
    assert [time for time, *_ in waiting(buffer)] == list(range(0, 300, 3))


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=20), st.sampled_from([LEFT, RIGHT]))
def test_what_is_added_is_read(values: list[bytes], side: int) -> None:
    buffer = JoinBuffer(Overlay(SPEC.name, InMemoryBackend()))
    for value in values:
        buffer.add(5, side, b"k", value)
    assert waiting(buffer) == [(5, side, b"k", values)]
