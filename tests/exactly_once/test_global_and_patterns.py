"""Global stores and topics found by a pattern, on a real broker."""

from __future__ import annotations

from tests.exactly_once.harness import Bench, check_counts, numbered

RULES = [(key, f"rule-{key}") for key in "abcd"]


async def test_a_global_store_is_filled_before_the_first_record_is_processed(bench: Bench) -> None:
    bench.topology = "by_rules"
    await bench.create_topic(f"{bench.source}-rules")
    inputs = numbered(100)
    await bench.produce(inputs)
    await bench.produce([(key, f"old {n}") for n in range(500) for key in "abcd"], topic=f"{bench.source}-rules")
    await bench.produce(RULES, topic=f"{bench.source}-rules")
    workers = [bench.start(name="w1"), bench.start(name="w2")]
    await bench.until_all_committed(*workers)
    for worker in workers:
        await worker.stop()
    expected = sorted(f"{value} rule-{key}" for key, value in inputs)
    assert sorted(str(seen.value) for seen in await bench.read(value=str)) == expected


async def test_a_global_store_goes_on_where_it_was_after_a_kill(bench: Bench) -> None:
    bench.topology = "by_rules"
    await bench.create_topic(f"{bench.source}-rules")
    await bench.produce(RULES, topic=f"{bench.source}-rules")
    await bench.produce(numbered(20))
    worker = bench.start()
    await bench.until_all_committed(worker)
    worker.kill()
    await bench.produce([("a", "newer")], topic=f"{bench.source}-rules")
    await bench.produce([("a", "last"), ("b", "last")])
    worker = bench.start()
    await bench.until_all_committed(worker)
    await worker.stop()
    outputs = [str(seen.value) for seen in await bench.read(value=str)]
    assert sorted(each for each in outputs if each.startswith("last")) == ["last newer", "last rule-b"]
    assert len(outputs) == 22


async def test_topics_that_turn_up_later_are_read_too(bench: Bench) -> None:
    bench.topology = "by_pattern"
    bench.settings["metadata_max_age_ms"] = 300
    workers = [bench.start(name=None), bench.start(name=None)]
    first, second = numbered(60), numbered(60, start=60)
    await bench.produce(first)
    await bench.until_all_committed(*workers)
    late = f"{bench.source}-late"
    await bench.create_topic(late)
    await bench.produce(second, topic=late)
    await bench.until_all_committed(*workers, topic=late)
    for worker in workers:
        await worker.stop()
    check_counts(first + second, await bench.read())


async def test_a_leader_hears_of_a_new_topic_from_those_who_read_it(bench: Bench) -> None:
    """It would not have looked for a long time; until it has, the tasks of the other wait."""
    bench.topology = "by_pattern"
    leader = bench.start(name=None, metadata_max_age_ms=1_000_000)
    await leader.until_running()
    other = bench.start(name=None, metadata_max_age_ms=300)
    await bench.until_shared(leader, other)
    first, second = numbered(60), numbered(60, start=60)
    await bench.produce(first)
    await bench.until_all_committed(leader, other)
    late = f"{bench.source}-late"
    await bench.create_topic(late)
    await bench.produce(second, topic=late)
    await bench.until_all_committed(leader, other, topic=late)
    await bench.until_shared(leader, other)
    assert len(leader.logged("topics have changed")) == 1
    for worker in (leader, other):
        await worker.stop()
    check_counts(first + second, await bench.read())
