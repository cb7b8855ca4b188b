"""Without any fault: everything once, in order, and positions where they belong."""

from __future__ import annotations

import anyio
import pytest

from streamlib.records import TopicPartition
from tests.exactly_once.harness import Bench, check_counts, numbered


async def test_a_copy_equals_its_input_in_order(bench: Bench) -> None:
    bench.topology = "copy"
    inputs = numbered(200)
    await bench.produce(inputs)
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    for key in "abcd":
        assert [r.value for r in await bench.read(value=str) if r.key == key] == [v for k, v in inputs if k == key]


async def test_each_round_of_a_restarted_application_appears_once(bench: Bench) -> None:
    rounds = [numbered(50), numbered(50, start=50)]
    for records in rounds:
        await bench.produce(records)
        worker = bench.start()
        await bench.until_all_committed(worker)
        await worker.stop()
    check_counts(rounds[0] + rounds[1], await bench.read())


async def test_behind_a_repartition_topic_everything_appears_once(bench: Bench) -> None:
    bench.topology = "regrouped"
    lines = [("ab"[n % 2], f"x{n % 3} y{n % 5}") for n in range(60)]
    words = [(word, "") for _, line in lines for word in line.split()]
    first, second = bench.start(name="w1"), bench.start(name="w2")
    await bench.produce(lines)

    async def all_out() -> bool:
        return len(await bench.read()) >= len(words)

    await bench.until(all_out, first, second)
    for worker in (first, second):
        await worker.stop()
    check_counts(words, await bench.read())


async def test_consumed_records_are_deleted_from_the_repartition_topic(bench: Bench) -> None:
    bench.topology = "regrouped"
    bench.settings["repartition_purge_interval_ms"] = 200
    worker = bench.start()
    await bench.produce([("a", "x y z")] * 20)
    internal = [TopicPartition(f"{bench.name}-word-repartition", number) for number in range(2)]

    async def purged() -> bool:
        starts = await bench.connection.admin().list_offsets(internal, "earliest")
        ends = await bench.connection.admin().list_offsets(internal, "latest")
        return sum(ends.values()) > 60 and starts == ends

    await worker.until_running()
    await bench.until(purged, worker)
    await worker.stop()
    check_counts([(word, "") for word in "xyz" for _ in range(20)], await bench.read())


async def test_the_position_goes_past_the_markers_of_a_transactional_input(bench: Bench) -> None:
    worker = bench.start()
    for start in range(0, 30, 10):  # several transactions, each visible as a whole
        await bench.produce(numbered(10, start=start), transactional_id=f"{bench.name}-input")
    await bench.until_all_committed(worker)  # ends include the control markers
    await worker.stop()
    check_counts(numbered(30), await bench.read())


async def test_offsets_of_several_inputs_are_committed_with_their_outputs(bench: Bench) -> None:
    bench.topology = "merged"
    await bench.create_topic(f"{bench.source}-2")
    worker = bench.start()
    await bench.produce(numbered(40))
    await bench.produce(numbered(40), topic=f"{bench.source}-2")
    await bench.until_all_committed(worker)
    await bench.until_all_committed(worker, topic=f"{bench.source}-2")
    await worker.stop()
    check_counts(numbered(40) + numbered(40), await bench.read())


async def test_workers_that_come_and_go_under_load_lose_and_repeat_nothing(bench: Bench) -> None:
    """Tasks are revoked while others have an open transaction."""
    inputs: list[tuple[str, str]] = []

    async def feed(count: int) -> None:
        for _ in range(count):
            records = numbered(10, start=len(inputs))
            inputs.extend(records)
            await bench.produce(records)
            await anyio.sleep(0.02)

    first = bench.start(name=None)
    await feed(30)
    second = bench.start(name=None)
    await second.until_running()
    await feed(30)
    await first.stop()
    await feed(30)
    third = bench.start(name=None)
    await third.until_running()
    await feed(30)
    await bench.until_all_committed(second, third)
    for worker in (second, third):
        await worker.stop()
    check_counts(inputs, await bench.read())


async def test_after_a_clean_stop_nothing_has_to_be_restored(bench: Bench) -> None:
    await bench.produce(numbered(100))
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    again = bench.start()
    await again.until_running()
    assert again.status["records_restored"] == 0
    await again.stop()


async def test_switching_to_exactly_once_needs_no_reset(bench: Bench) -> None:
    bench.guarantee = "at_least_once"
    await bench.produce(numbered(40))
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    bench.guarantee = "exactly_once_v2"
    await bench.produce(numbered(40, start=40))
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    check_counts(numbered(80), await bench.read())


@pytest.mark.parametrize("guarantee", ["exactly_once_v2", "at_least_once"])
async def test_two_workers_share_the_work(bench: Bench, guarantee: str) -> None:
    bench.guarantee = guarantee
    first, second = bench.start(name="w1"), bench.start(name="w2")
    await first.until_running()
    await second.until_running()
    await bench.produce(numbered(100))
    await bench.until_all_committed(first, second)
    assert sorted(first.status["tasks"] + second.status["tasks"]) == ["0_0", "0_1"]
    for worker in (first, second):
        await worker.stop()
    check_counts(numbered(100), await bench.read())
