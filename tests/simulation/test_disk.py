"""Disks that survive a kill, or do not."""

from __future__ import annotations

import pytest

from streamlib.errors import LockError
from streamlib.records import TaskId
from streamlib.serdes import serde_for
from streamlib.simulation.disk import Disk, DiskDirectory
from streamlib.simulation.loop import Process
from streamlib.topology.nodes import StoreSpec

TASK = TaskId(0, 0)
STORES = [StoreSpec(name="s", kind="key_value", key=serde_for(str), value=serde_for(str))]


def test_what_was_written_is_there_after_a_kill() -> None:
    disk, first = Disk("h"), Process("h")
    DiskDirectory(disk, first).open(TASK, STORES).write({"s": {b"k": b"v"}}, {"s": 5})
    first.kill()
    again = DiskDirectory(disk, Process("h")).open(TASK, STORES)
    assert again.get("s", b"k") == b"v"
    assert again.positions() == {"s": 5}
    assert DiskDirectory(disk, Process("h")).stored_positions().keys() == {TASK}


def test_stores_of_a_living_process_are_locked() -> None:
    disk = Disk("h")
    backend = DiskDirectory(disk, Process("h")).open(TASK, STORES)
    other = DiskDirectory(disk, Process("h"))
    with pytest.raises(LockError):
        other.open(TASK, STORES)
    aside = other.open(TASK, STORES, aside=True)
    assert aside.positions() == {}
    backend.close()
    other.open(TASK, STORES)


def test_lost_tail_takes_content_and_position_back_together() -> None:
    disk = Disk("h")
    backend = DiskDirectory(disk, Process("h")).open(TASK, STORES)
    backend.write({"s": {b"a": b"1", b"b": b"1"}}, {"s": 1})
    backend.write({"s": {b"a": b"2"}}, {"s": 2})
    backend.write({"s": {b"b": None}}, {"s": 3})
    assert disk.lose_tail(2) == 2
    content = disk.folders[str(TASK)].content
    assert dict(content.scan("s", None, None)) == {b"a": b"1", b"b": b"1"}
    assert content.positions() == {"s": 1}


def test_lost_disk_is_empty_and_its_worker_another_one() -> None:
    disk = Disk("h")
    DiskDirectory(disk, Process("h")).open(TASK, STORES).write({"s": {b"a": b"1"}}, {"s": 1})
    before = disk.identity
    disk.lose()
    assert disk.identity != before
    assert DiskDirectory(disk, Process("h")).open(TASK, STORES).get("s", b"a") is None


def test_workers_on_one_disk_have_names_of_their_own_and_see_the_same_stores() -> None:
    disk = Disk("h")
    first, second = DiskDirectory(disk, Process("h")), DiskDirectory(disk, Process("i"))
    assert (first.identity, second.identity) == ("h", "i")
    assert first.process == second.process
    first.open(TASK, STORES).write({"s": {b"a": b"1"}}, {"s": 1})
    second.open(TASK, STORES, aside=True).write({"s": {b"a": b"2"}}, {"s": 2})
    assert second.stored_positions() == {TASK: {"s": 1}}
    assert sorted(disk.copies(TASK)) == ["0_0", "0_0.aside-i"]
