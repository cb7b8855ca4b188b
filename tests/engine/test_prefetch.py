"""Rows that records will ask for are read together, where that is known and where it pays."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamlib import StreamsBuilder
from streamlib.engine import inputs
from streamlib.engine.compile import children_of
from streamlib.engine.prefetch import stores_read_by_key
from streamlib.engine.task import Task
from streamlib.rocksdb import RocksDBBackend, _Rows
from streamlib.serdes import serde_for
from streamlib.state.backend import Backend
from streamlib.state.memory import InMemoryBackend
from streamlib.topology.nodes import SourceNode, StoreSpec
from streamlib.topology.topology import Topology
from tests.engine.support import INPUT, OUTPUT, batch, task_of


def joined_and_counted() -> Topology:
    builder = StreamsBuilder()
    table = builder.table("table", key=str, value=str, store="rows")
    stream = builder.stream("stream", key=str, value=str).filter(lambda key, value: True).map_values(str.upper)
    stream.join(table, lambda left, right: left + right).group_by_key().count(store="counts").to_stream().to("out")
    builder.stream("other", key=str, value=str).group_by(lambda key, value: value).count(store="others")
    return builder.build()


def test_stores_that_are_read_under_the_keys_of_a_source_are_known() -> None:
    nodes = joined_and_counted().nodes
    children = children_of(nodes)
    found = {
        node.topics[0]: stores_read_by_key(node, nodes, children)
        for node in nodes.values()
        if isinstance(node, SourceNode)
    }
    assert found == {
        "table": {"rows"},
        "stream": {"rows", "counts"},
        "other": set(),  # the keys change on the way
        "others-repartition": {"others"},
    }


class Told(InMemoryBackend):
    """Notes which keys it was told of."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[bytes] = []

    def prefetch(self, store: str, keys: Sequence[bytes]) -> None:
        self.keys += keys


def counting_task(backend: Backend) -> Task:
    builder = StreamsBuilder()
    builder.stream(INPUT.topic, key=str, value=str).group_by_key().count(store="counts").to_stream().to(OUTPUT.topic)
    return task_of(builder.build(), backend)


def test_keys_are_told_once_each_a_bounded_number_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "PREFETCHED_RECORDS", 4)
    backend = Told()
    task = counting_task(backend)
    task.enqueue(batch(INPUT, 0, *((str(n), "v", n) for n in range(10)), (None, "v", 10)))
    task.process(3)
    assert backend.keys == [b"0", b"1", b"2", b"3"]
    task.process(1)
    assert backend.keys == [b"0", b"1", b"2", b"3"]
    task.process(1)
    assert backend.keys == [str(n).encode() for n in range(8)]
    while task.process(3):
        pass
    assert backend.keys == [str(n).encode() for n in range(10)]


KEYS = st.sampled_from([b"%d" % number for number in range(30)])
STEPS = st.lists(
    st.tuples(st.just("get"), KEYS)
    | st.tuples(st.just("prefetch"), st.lists(KEYS))
    | st.tuples(st.just("write"), st.dictionaries(KEYS, st.none() | st.binary(max_size=40)))
)
SPEC = StoreSpec(name="s", kind="key_value", key=serde_for(bytes), value=serde_for(bytes))


@given(STEPS)
@settings(deadline=None, max_examples=50)
def test_rows_are_the_same_whether_they_were_prefetched_or_not(steps: list[tuple[str, Any]]) -> None:
    expected: dict[bytes, bytes | None] = {}
    with tempfile.TemporaryDirectory() as folder:
        backend = RocksDBBackend(Path(folder), [SPEC], memory_bytes=1_000)  # room for two or three rows
        try:
            for step, what in steps:
                if step == "get":
                    assert backend.get("s", what) == expected.get(what)
                elif step == "prefetch":
                    backend.prefetch("s", what)
                else:
                    backend.write({"s": what}, {"s": 0})
                    expected = {key: row for key, row in (expected | what).items() if row is not None}
        finally:
            backend.close()


class Family:
    """A column family that counts how it is asked."""

    def __init__(self) -> None:
        self.single = self.together = 0

    def get(self, key: bytes | list[bytes]) -> Any:
        if isinstance(key, list):
            self.together += 1
            return [b"row"] * len(key)
        self.single += 1
        return b"row"


def test_rows_are_prefetched_while_that_pays() -> None:
    family = Family()
    rows = _Rows(cast(Any, family), lambda: 1 << 20)
    first, second, third = ([b"%d" % number for number in range(start, start + 100)] for start in (0, 100, 200))
    rows.prefetch(first)  # nothing is known of what is missing yet
    assert [rows.get(key) for key in first] == [b"row"] * 100
    assert (family.single, family.together) == (100, 0)
    for keys in (second, third):
        rows.prefetch(keys)
        assert [rows.get(key) for key in keys] == [b"row"] * 100
    assert (family.single, family.together) == (100, 2)
    for _ in range(3):  # all of it is there by now
        rows.prefetch(third)
    assert (family.single, family.together) == (100, 2)
