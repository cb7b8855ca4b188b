"""Each record with what a global table has for it; the table is complete before the first record is processed."""

from __future__ import annotations

import random
from collections.abc import Mapping

from streamlib.dsl.builder import StreamsBuilder
from streamlib.simulation.differences import Result
from streamlib.simulation.workloads.drawing import START_MS, Draw, keys_of
from streamlib.simulation.workloads.reading import Topic
from streamlib.simulation.workloads.workload import PARTITIONS, Input, Seen, Workload
from streamlib.topology.topology import Topology

RULES = Topic("rules", str, str)
IN = Topic("in", str, str)
OUT = Topic("out", str, str)
RULE_KEYS = {partition: keys_of(partition, 3) for partition in range(PARTITIONS)}
UNKNOWN = "?"
"""The key of a rule that is never there."""


def topology() -> Topology:
    builder = StreamsBuilder()
    rules = builder.global_table(RULES.name, key=str, value=str, store="rules")
    records = builder.stream(IN.name, key=str, value=str)
    ruled = records.left_join(rules, by_rule, key_selector=lambda key, value: value[0], result=str)
    ruled.to(OUT.name)
    return builder.build()


def by_rule(value: str, rule: str | None) -> str:
    """A record's value with the rule it names."""
    return f"{value} {rule}"


def inputs(rng: random.Random, count: int) -> list[Input]:
    """Some versions of each rule, deletes among them; then records that name one by their first letter."""
    drawn: list[Input] = []
    for partition, keys in RULE_KEYS.items():
        for number in range(rng.randint(0, 8)):
            value = f"r{number}" if rng.random() < 0.8 else None
            drawn.append(RULES.record(partition, rng.choice(keys), value, START_MS + number))
    draw = Draw(rng, keys=3)
    times = draw.times(step_ms=50, late_ms=200, late_share=0.3)
    named = [UNKNOWN, *RULE_KEYS[0], *RULE_KEYS[1]]
    drawn += [
        IN.record(partition, key, f"{rng.choice(named)}:{name}", times[partition].next())
        for partition, key, name in draw.records(count)
    ]
    return drawn


def check(seen: Seen) -> list[str]:
    rules: Mapping[str, str | None] = {row.key: row.value for rows in RULES.inputs(seen).values() for row in rows}
    expected = {
        partition: [Result(row.key, by_rule(row.value, rules.get(row.value[0])), row.timestamp) for row in rows]
        for partition, rows in IN.inputs(seen).items()
    }
    return OUT.in_order(seen, expected)


GLOBAL_TABLE = Workload(
    name="global_table",
    about="each record once, with what the whole of a global table has for it",
    topics={RULES.name: PARTITIONS, IN.name: PARTITIONS, OUT.name: PARTITIONS},
    outputs=(OUT.name,),
    topology=topology,
    inputs=inputs,
    check=check,
    prepared=(RULES.name,),
)
