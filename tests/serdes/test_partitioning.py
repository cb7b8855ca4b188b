"""Keys go where a Java producer sends them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as other_murmur2
from hypothesis import given
from hypothesis import strategies as st

from streamlib.partitioning import murmur2, partition_for, partitioner_for
from streamlib.serdes import Serde, Serdes

FIXTURES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "fixtures/partitions.json").read_text())
BY_JAVA_TYPE: dict[str, Serde[Any]] = {"string": Serdes.string(), "long": Serdes.long(), "int": Serdes.integer()}


@pytest.mark.parametrize("row", FIXTURES, ids=str)
def test_partitions_are_those_of_kafkas_producer(row: dict[str, Any]) -> None:
    key = BY_JAVA_TYPE[row["type"]].encode(row["key"])
    assert partition_for(key, row["partitions"]) == row["partition"]
    assert partitioner_for(row["partitions"])(key) == row["partition"]


# The values of org.apache.kafka.common.utils.UtilsTest.testMurmur2.
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_hash_is_kafkas(data: bytes, expected: int) -> None:
    assert murmur2(data) == expected & 0xFFFFFFFF


@given(st.binary(max_size=40), st.integers(1, 50))
def test_keys_land_where_another_client_puts_them(key: bytes, partitions: int) -> None:
    expected = (other_murmur2(key) & 0x7FFFFFFF) % partitions
    assert partition_for(key, partitions) == partitioner_for(partitions)(key) == expected
