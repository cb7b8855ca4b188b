"""A store outlives three programs: on its disk, and restored from its changelog."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio.to_thread
import msgspec
import pytest

from streamlib import StreamsBuilder, Topology, upgrades
from streamlib.errors import StateStoreError
from streamlib.testing.plugin import KafkaTarget
from tests.schemas.test_on_a_broker import Cluster, running

pytestmark = [pytest.mark.broker, pytest.mark.slow]


class First(msgspec.Struct):
    amount: float = 0.0


@upgrades(First, lambda old: Second(round(old.amount * 100), True))
class Second(msgspec.Struct):
    cents: int = 0
    was_upgraded: bool = False


class Renamed(msgspec.Struct):
    minor_units: int


def totals(name: str, value: type, add: Callable[[Any, float], Any]) -> Topology:
    builder = StreamsBuilder()
    amounts = builder.stream(f"{name}-in", key=None, value=str).group_by(lambda _, text: text[0], key=str, name="by")
    table = amounts.aggregate(value, lambda _, text, total: add(total, float(text[1:])), value=value, store="totals")
    table.to_stream().to(f"{name}-out")
    return builder.build()


async def test_rows_are_upgraded_on_disk_and_from_the_changelog_or_refused(
    kafka: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    cluster = Cluster(kafka, unique_name("upgrades"), tmp_path / "first")
    first = totals(cluster.name, First, lambda total, amount: First(total.amount + amount))
    second = totals(
        cluster.name, Second, lambda total, amount: Second(total.cents + round(amount * 100), total.was_upgraded)
    )
    renamed = totals(cluster.name, Renamed, lambda total, amount: total)

    async def run(topology: Topology, values: list[bytes], total: int) -> list[tuple[bytes | None, bytes]]:
        """What came out for these, after all that came out before."""
        await anyio.to_thread.run_sync(cluster.write, values)
        async with running(topology, cluster):
            rows = await cluster.read("out", total)
        assert len(rows) == total
        return sorted(rows[-len(values) :])

    assert await run(first, [b"a1", b"b2", b"c3"], 3) == [
        (b"a", b'{"amount":1.0}'),
        (b"b", b'{"amount":2.0}'),
        (b"c", b'{"amount":3.0}'),
    ]
    assert await run(second, [b"a1"], 4) == [(b"a", b'{"cents":200,"was_upgraded":true}')]

    for folder, why in (("first", "a newer program|field amount is not there|values of version 2"), ("none", "offset")):
        cluster.move(tmp_path / folder)
        with pytest.raises(StateStoreError, match=f"store totals.*({why})"):
            async with running(renamed, cluster):
                pass

    cluster.move(tmp_path / "restored")  # from rows of both versions
    assert await run(second, [b"a1", b"b1"], 6) == [
        (b"a", b'{"cents":300,"was_upgraded":true}'),
        (b"b", b'{"cents":300,"was_upgraded":true}'),
    ]
