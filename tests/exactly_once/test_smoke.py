"""Many kinds of aggregation at once, while the workers are replaced one after the other: equal to a recount."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from itertools import accumulate
from pathlib import Path

import pytest

from streamlib.testing.plugin import KafkaTarget
from tests.exactly_once.harness import Bench, Worker, numbered, opened

PARTITIONS = 4
KEYS = "abcdefghij"
WORKERS = ("w1", "w2", "w3")
WINDOW = 10  # numbers: each is a tenth of a second, and a window a second
PORTION = 60
FIRST = int(time.time()) * 10  # what is much older than now, the broker deletes


@pytest.fixture
async def bench(kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path) -> AsyncIterator[Bench]:
    async with opened(Bench(kafka_broker, unique_name("smoke"), tmp_path, "smoke"), PARTITIONS) as ready:
        yield ready


@pytest.mark.parametrize("kill", [False, True], ids=["stopped", "killed"])
async def test_all_aggregations_equal_a_recount_whatever_happens_to_the_workers(bench: Bench, kill: bool) -> None:
    workers = {name: bench.start(name=name, state_dir=bench.disk(name)) for name in WORKERS}
    inputs: list[tuple[str, str]] = []
    for name in WORKERS:
        for in_good_order in (True, False):
            more = numbered(PORTION, KEYS, FIRST + len(inputs))
            await bench.produce(more)
            inputs += more
            if in_good_order:
                await bench.until_committed(len(inputs), *workers.values())
        await end(workers[name], kill)
        workers[name] = bench.start(name=name, state_dir=bench.disk(name))
    await bench.until_all_committed(*workers.values())
    await bench.until_all_committed(*workers.values(), topic=f"{bench.name}-count-repartition")
    for worker in workers.values():
        await worker.stop()

    found: dict[str, list[int]] = defaultdict(list)
    keys_by_count: dict[str, int | str | None] = {}
    for seen in await bench.read():
        if seen.key.startswith("of-count "):
            keys_by_count[seen.key] = seen.value  # which keys come first at a count is left to chance
        else:
            assert isinstance(seen.value, int)
            found[seen.key].append(seen.value)
    assert found == recount(inputs)
    each = len(inputs) // len(KEYS)
    # As in Kafka Streams, the old value of a first count is its initial one, which was nobody's count.
    wanted = {"of-count 0": None} | {f"of-count {count}": 0 for count in range(1, each)}
    assert keys_by_count == wanted | {f"of-count {each}": len(KEYS)}


async def end(worker: Worker, kill: bool) -> None:
    if kill:
        worker.kill()
    else:
        await worker.stop()


def recount(inputs: Iterable[tuple[str, str]]) -> dict[str, list[int]]:
    """Every update of every aggregate, in order."""
    by_key: dict[str, list[int]] = defaultdict(list)
    by_partition: dict[int, int] = {}
    for key, value in inputs:
        by_key[key].append(int(value))
        by_partition[ord(key) % PARTITIONS] = int(value)
    wanted: dict[str, list[int]] = {}
    for key, numbers in by_key.items():
        sums = list(accumulate(numbers))
        # The join is updated twice: when the count is there, and when the sum is.
        averages = [total // count for count in range(1, len(sums) + 1) for total in sums[max(count - 2, 0) : count]]
        wanted[f"min {key}"] = list(accumulate(numbers, min))
        wanted[f"max {key}"] = list(accumulate(numbers, max))
        wanted[f"sum {key}"] = sums
        wanted[f"count {key}"] = list(range(1, len(numbers) + 1))
        wanted[f"average {key}"] = averages
        for start in sorted({number - number % WINDOW for number in numbers}):
            updates = list(accumulate(number for number in numbers if start <= number < start + WINDOW))
            wanted[f"window {key} {start * 100}"] = updates
            if start + WINDOW <= by_partition[ord(key) % PARTITIONS]:
                wanted[f"final {key} {start * 100}"] = [updates[-1]]
    return wanted
