"""Global stores: whole, at their position, and only read by tasks."""

from __future__ import annotations

import pytest

from streamlib import Stores, StreamsBuilder
from streamlib.engine.global_state import GlobalState
from streamlib.engine.plan import make_plan
from streamlib.errors import SerializationError, StateStoreError
from streamlib.records import TopicPartition
from streamlib.state.memory import InMemoryBackend
from streamlib.testing import TopologyTestDriver
from tests.engine.support import Batch, Fetched

ONE, TWO = (TopicPartition("rules", number) for number in (0, 1))


def opened(backend: InMemoryBackend) -> GlobalState:
    builder = StreamsBuilder()
    builder.global_table("rules", key=str, value=str, store="rules")
    builder.stream("in", key=str, value=str).to("out")
    state = GlobalState(make_plan(builder.build(), "app", {"rules": 2, "in": 1}), backend, now_ms=lambda: 0)
    state.start()
    return state


def value(state: GlobalState, key: str) -> bytes | None:
    row = state.stores["rules"].overlay.get(key.encode())
    return None if row is None else row[8:]


def test_all_partitions_are_read_each_from_where_its_store_ends() -> None:
    backend = InMemoryBackend()
    state = opened(backend)
    assert state.positions() == {ONE: 0, TWO: 0}
    assert state.apply(Batch(ONE, 7, [Fetched(5, 1, b"a", b"x")])) == 1
    assert state.apply(Batch(TWO, 2, [Fetched(0, 1, b"b", b"y"), Fetched(1, 2, b"b", None)])) == 2
    again = opened(backend)
    assert again.positions() == {ONE: 7, TWO: 2}
    assert [value(again, "a"), value(again, "b")] == [b"x", None]


def test_what_a_topic_no_longer_has_is_forgotten_whole() -> None:
    state = opened(InMemoryBackend())
    state.apply(Batch(ONE, 7, [Fetched(5, 1, b"a", b"x")]))
    state.clear()
    assert state.positions() == {ONE: 0, TWO: 0}
    assert value(state, "a") is None


def test_a_record_that_cannot_be_read_names_its_place_and_is_not_passed() -> None:
    state = opened(InMemoryBackend())
    with pytest.raises(SerializationError, match="topic rules, partition 0, offset 1"):
        state.apply(Batch(ONE, 2, [Fetched(0, 1, b"a", b"x"), Fetched(1, 1, b"\xff", b"x")]))
    assert state.positions()[ONE] == 0
    assert value(state, "a") is None


def test_tasks_cannot_write_a_global_store() -> None:
    class Writes:
        def init(self, context: object) -> None:
            self.store = context.state_store("rules")  # type: ignore[attr-defined]

        def process(self, record: object) -> None:
            self.store.put("a", "b")

    class Keeps(Writes):
        def process(self, record: object) -> None:
            self.store.put(record.key, record.value)  # type: ignore[attr-defined]

    builder = StreamsBuilder()
    rules = Stores.key_value_store("rules", key=str, value=str)
    builder.add_global_store(rules, "rules", Keeps, key=str, value=str)
    builder.stream("in", key=str, value=str).process(Writes)
    with TopologyTestDriver(builder.build()) as driver:
        driver.input_topic("rules", key=str, value=str).pipe_input("k", "v")
        assert driver.store("rules").get("k") == "v"
        with pytest.raises(StateStoreError, match=r"store rules is global: .* write to the topic instead"):
            driver.input_topic("in", key=str, value=str).pipe_input("k", "v")
