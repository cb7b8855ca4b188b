"""Rows of every kind of store are read by the next version of the program: from the disk, and from changelogs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from streamlib import ProcessorContext, Record, Stores, StreamsBuilder, Topology, Windowed, upgrades
from streamlib.engine.task import Task
from streamlib.errors import StateStoreError
from streamlib.serdes import Serdes
from streamlib.state.memory import InMemoryBackend
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import StoreSpec
from tests.engine.support import Batch, Fetched

MINUTE = timedelta(minutes=1)


class First(msgspec.Struct):
    amount: float


@upgrades(First, lambda old: Second(round(old.amount * 100)))
class Second(msgspec.Struct):
    cents: int


class Renamed(msgspec.Struct):
    minor_units: int


def stores(value: Any) -> list[StoreSpec]:
    """One of each kind, of one type of values, or `First` but for those that are named."""
    made = _stores(value if not isinstance(value, dict) else First)
    if not isinstance(value, dict):
        return made
    others = {name: _stores(type_) for name, type_ in value.items()}
    return [next((o for o in others.get(spec.name, ()) if o.name == spec.name), spec) for spec in made]


def _stores(value: Any) -> list[StoreSpec]:
    types: dict[str, Any] = {"key": str, "value": value}
    kept = {**types, "retention": MINUTE}
    return [
        Stores.key_value_store("plain", **types),
        Stores.key_value_store("plain-ttl", ttl=MINUTE, **types),
        Stores.timestamped_key_value_store("timed", **types),
        Stores.lru_map("latest", max_entries=9, **types),
        Stores.window_store("window", window_size=MINUTE, **kept),
        Stores.timestamped_window_store("timed-window", window_size=MINUTE, **kept),
        Stores.session_store("session", **kept),
        Stores.versioned_key_value_store("versioned", history_retention=MINUTE, **types),
    ]


def writing(value: Any, made: Any) -> Topology:
    """Each record puts a value into every store."""

    specs = stores(value)

    class Writing:
        def init(self, context: ProcessorContext) -> None:
            self.opened: dict[str, Any] = {spec.name: context.state_store(spec.name) for spec in specs}

        def process(self, record: Record[str, float]) -> None:
            key, row = record.key, made(record.value)
            for name in ("plain", "plain-ttl", "timed", "latest"):
                self.opened[name].put(key, row)
            self.opened["window"].put(key, row, 0)
            self.opened["timed-window"].put(key, row, 0)
            self.opened["session"].put(Windowed(key, 0, 5), row)
            self.opened["versioned"].put(key, row, record.timestamp)

        def close(self) -> None:
            pass

    builder = StreamsBuilder()
    builder.stream("in", key=str, value=float).process(Writing, *specs)
    return builder.build()


def after(old: TopologyTestDriver, topology: Topology, *, with_disk: bool) -> TopologyTestDriver:
    """The next program, on what the one before has left."""
    driver = TopologyTestDriver(topology)
    driver._log = old._log
    for task_id, task in driver._tasks.items():
        task.rollback()
        task.backend = old._tasks[task_id].backend if with_disk else InMemoryBackend()
        task.restore_positions()
        if not with_disk:
            _restore(old, task)
        task.start({}, dict.fromkeys(task.inputs, 0))
    return driver


def _restore(old: TopologyTestDriver, task: Task) -> None:
    for partition in task.changelogs:
        found = enumerate(old._log.unread(partition.topic))
        fetched = [Fetched(offset, at, key, value, headers) for offset, (key, value, at, headers) in found]
        task.restore(Batch(partition, len(fetched), fetched))


@pytest.mark.parametrize("with_disk", [True, False])
@pytest.mark.parametrize("form", [Serdes.json, Serdes.msgpack])
def test_rows_of_the_version_before_are_read_and_written_over(form: Any, with_disk: bool) -> None:
    with TopologyTestDriver(writing(form(First), First)) as old:
        for key in ("ann", "bob"):
            old.input_topic("in", key=str, value=float).pipe_input(key, 1.5, timestamp_ms=5)
        new = after(old, writing(form(Second), lambda amount: Second(round(amount))), with_disk=with_disk)
        new.input_topic("in", key=str, value=float).pipe_input("bob", 7.0, timestamp_ms=6)
        for spec in stores(form(Second)):
            found = {str(getattr(key, "key", key)): value for key, value in new.store(spec.name).items()}
            assert (spec.name, found) == (spec.name, {"ann": Second(150), "bob": Second(7)})


@pytest.mark.parametrize("number", range(8))
def test_no_kind_of_store_is_restored_to_rows_that_it_cannot_read(number: int) -> None:
    """Each kind is the only one whose type has changed."""
    changed = stores(First)[number].name
    with TopologyTestDriver(writing(First, First)) as old:
        old.input_topic("in", key=str, value=float).pipe_input("ann", 1.5, timestamp_ms=5)
        with pytest.raises(StateStoreError, match=rf"store {changed}: the row in .* offset 0 cannot be read"):
            after(old, writing({changed: Renamed}, First), with_disk=False)
