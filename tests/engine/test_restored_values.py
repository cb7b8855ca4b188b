"""Rows that come from a changelog are looked at before anything is processed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamlib.engine.task import Task
from streamlib.errors import StateStoreError
from streamlib.records import TopicPartition
from streamlib.row_versions import upgrades
from streamlib.serdes import serde_for
from streamlib.state.memory import InMemoryBackend
from streamlib.topology import operators as op
from streamlib.topology.topology import Topology
from tests.engine.support import Batch, Fetched, build, processor, source, task_of, timestamped

CHANGELOG = TopicPartition("app-totals-changelog", 0)


class First(msgspec.Struct):
    amount: float


@upgrades(First, lambda old: Total(round(old.amount * 100)))
class Total(msgspec.Struct):
    cents: int


class Renamed(msgspec.Struct):
    total: int


OLD = [b'{"amount":1.0}', b'{"amount":2.0}', None]


def totals(value: Any) -> Topology:
    fold = op.StreamReduce("totals", lambda total, value: total)
    return build([source(), processor("fold", fold, "source", "totals")], [timestamped("totals", serde_for(value))])


def restored(value: Any, backend: InMemoryBackend, rows: list[bytes | None], start: int = 0) -> Task:
    task = task_of(totals(value), backend, start=False)
    records = [Fetched(start + number, 5, b"%d" % number, row) for number, row in enumerate(rows)]
    task.restore(Batch(CHANGELOG, start + len(rows), records))
    return task


def start(task: Task) -> None:
    task.start({}, dict.fromkeys(task.inputs, 0))


def test_rows_of_a_declared_version_are_restored_and_read() -> None:
    task = restored(Total, InMemoryBackend(), OLD)
    start(task)
    store: Any = task.store("totals")
    (rows,) = [[store.spec.value.decode(row[8:]) for _, row in store.overlay.scan()]]
    assert rows == [Total(100), Total(200)]


def test_a_task_whose_store_cannot_read_its_rows_does_not_start() -> None:
    task = restored(Renamed, InMemoryBackend(), OLD)
    with pytest.raises(
        StateStoreError,
        match=r"store totals: the row in topic app-totals-changelog, partition 0, offset 0 cannot be read as "
        r"json\(Renamed\): .*`total`: declare how older values are upgraded, @upgrades",
    ):
        start(task)


def test_a_row_that_cannot_be_read_is_found_again_at_the_next_start() -> None:
    backend = InMemoryBackend()
    restored(Renamed, backend, [b'{"total":1}'])
    restored(Renamed, backend, OLD, start=1)
    assert backend.positions() == {"totals": 1}
    assert [row[8:] for _, row in backend.scan("totals", None, None)] == [b'{"total":1}']
    again = restored(Renamed, backend, OLD, start=1)
    with pytest.raises(StateStoreError, match="offset 1 cannot be read"):
        start(again)


def test_a_program_that_reads_the_rows_goes_on_where_another_did_not() -> None:
    backend = InMemoryBackend()
    restored(Renamed, backend, OLD)
    start(restored(First, backend, OLD))
    assert len(list(backend.scan("totals", None, None))) == 2


def test_one_that_is_asked_where_to_restore_from_begins_anew() -> None:
    """A standby that is promoted, a task that is rolled back: the positions are those of what is there."""
    task = restored(Renamed, InMemoryBackend(), OLD)
    assert task.positions_stored() == {CHANGELOG: 3}
    assert task.restore_positions() == {CHANGELOG: None}
    task.restore(Batch(CHANGELOG, 3, [Fetched(2, 5, b"a", b'{"total":1}')]))
    start(task)
