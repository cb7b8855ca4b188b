"""The tasks of a test driver started again, as after a crash: over their stores, or by another worker without them."""

from __future__ import annotations

from streamlib.engine.task import Task
from streamlib.state.memory import InMemoryBackend
from streamlib.testing import TopologyTestDriver
from tests.engine.support import Batch, Fetched


def keep_disks(driver: TopologyTestDriver) -> None:
    """Nothing is lost but what was not committed."""
    for task in driver._tasks.values():
        task.rollback()
        _start(driver, task)


def lose_disks(driver: TopologyTestDriver) -> None:
    """Nothing is left but changelogs and committed offsets."""
    for task in driver._tasks.values():
        task.rollback()
        task.backend = InMemoryBackend()
        task.restore_positions()
        for partition in task.changelogs:
            fetched = [
                Fetched(offset, timestamp, key, value, headers)
                for offset, (key, value, timestamp, headers) in enumerate(driver._log.unread(partition.topic))
            ]
            task.restore(Batch(partition, len(fetched), fetched))
        _start(driver, task)


def _start(driver: TopologyTestDriver, task: Task) -> None:
    committed = {p: driver._committed[p] for p in task.inputs if p in driver._committed}
    task.start(committed, {p: 0 for p in task.inputs if p not in committed})
