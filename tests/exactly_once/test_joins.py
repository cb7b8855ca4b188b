"""Joins on several partitions and workers, one of which is killed: what comes out is what brute force says."""

from __future__ import annotations

from collections import Counter

from tests.exactly_once.harness import Bench, check_counts

KEYS = "abcdefgh"


async def test_rows_are_joined_with_those_they_name_through_a_kill(bench: Bench) -> None:
    bench.topology = "by_foreign_key"
    others_topic = f"{bench.source}-others"
    await bench.create_topic(others_topic)
    first, second = bench.start(name="w1"), bench.start(name="w2")
    rows: dict[str, str] = {}
    others: dict[str, str] = {}
    for turn in range(6):
        new_rows = [(key, f"{KEYS[(number * 3 + turn) % 5]}:{turn}") for number, key in enumerate(KEYS)]
        new_others = [(key, f"{key}{turn}") for key in KEYS[turn % 3 :: 2]]
        rows.update(new_rows)
        others.update(new_others)
        await bench.produce(new_others, topic=others_topic)
        await bench.produce(new_rows)
        if turn == 2:
            await bench.until_committed(len(KEYS), first, second)
            first.kill()
            first = bench.start(name="w1")
    expected = {key: f"{row}/{others.get(row.partition(':')[0])}" for key, row in rows.items()}

    async def all_joined() -> bool:
        return {seen.key: seen.value for seen in await bench.read(value=str)} == expected

    await bench.until(all_joined, first, second)
    for worker in (first, second):
        await worker.stop()
    assert {seen.key: seen.value for seen in await bench.read(value=str)} == expected


async def test_pairs_of_two_streams_are_counted_once_through_a_kill(bench: Bench) -> None:
    bench.topology = "windowed_pairs"
    others_topic = f"{bench.source}-others"
    await bench.create_topic(others_topic)
    left = [("abcd"[n % 4], f"{'xy'[n % 2]}{n}") for n in range(40)]
    right = [("abcd"[n % 4], str(n)) for n in range(24)]
    first, second = bench.start(name="w1"), bench.start(name="w2")
    await bench.produce(left[:20])
    await bench.produce(right, topic=others_topic)
    await bench.until_committed(10, first, second)
    second.kill()
    await bench.produce(left[20:])
    second = bench.start(name="w2")
    matches = Counter(key for key, _ in right)
    pairs = [(key + value[0], "") for key, value in left for _ in range(matches[key])]

    async def all_out() -> bool:
        return len(await bench.read()) >= len(pairs)

    await bench.until(all_out, first, second)
    for worker in (first, second):
        await worker.stop()
    check_counts(pairs, await bench.read())
