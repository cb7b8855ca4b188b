"""What punctuators on the wall clock write is there exactly once, though no record moves an offset."""

from __future__ import annotations

import signal
from collections import defaultdict
from typing import Any

import anyio
import pytest

from tests.exactly_once.harness import Bench, Worker

KILLS: list[dict[str, Any]] = [
    {"act": "kill", "when": "sent", "api": "Produce", "nth": 4},
    {"act": "kill", "when": "before", "api": "EndTxn", "nth": 4},
    {"act": "kill", "when": "after", "api": "EndTxn", "nth": 4},
    {"act": "kill", "when": "before", "api": "store-write", "nth": 4},
]


async def until_ticked(bench: Bench, more: int, worker: Worker) -> None:
    seen = len(await bench.read())

    async def ticked() -> bool:
        return len(await bench.read()) >= seen + more

    await bench.until(ticked, worker)


@pytest.mark.parametrize("kill", KILLS, ids=lambda kill: f"{kill['when']}-{kill['api']}")
async def test_a_kill_loses_and_repeats_no_punctuation(bench: Bench, kill: dict[str, Any]) -> None:
    bench.topology = "ticking"
    await bench.start(kill).until_dead()
    assert bench.workers[0].process.returncode == -signal.SIGKILL, bench.workers[0].log
    again = bench.start()
    await until_ticked(bench, 10, again)
    await again.stop()
    elsewhere = bench.start(state_dir=str(bench.folder / "another-disk"))
    await until_ticked(bench, 4, elsewhere)
    await elsewhere.stop()
    numbers: dict[str, list[Any]] = defaultdict(list)
    for record in await bench.read():
        numbers[record.key].append(record.value)
    assert numbers == {task: list(range(1, len(numbers[task]) + 1)) for task in ("0_0", "0_1")}


async def test_a_worker_that_only_punctuates_is_refused_as_a_zombie(bench: Bench) -> None:
    bench.topology = "ticking"
    frozen = bench.start(name=None)
    await until_ticked(bench, 4, frozen)
    frozen.freeze()
    successor = bench.start(name=None, state_dir=str(bench.folder / "another-disk"))
    await successor.until_running()
    await until_ticked(bench, 10, successor)
    frozen.thaw()
    await until_ticked(bench, 10, successor)
    with anyio.fail_after(30):
        await frozen.stop()
    await successor.stop()
    numbers: dict[str, list[Any]] = defaultdict(list)
    for record in await bench.read():
        numbers[record.key].append(record.value)
    assert numbers == {task: list(range(1, len(numbers[task]) + 1)) for task in ("0_0", "0_1")}
