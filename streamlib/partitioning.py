"""Which partition a key belongs to: Kafka's murmur2, bit for bit.

A record written by a Java producer and one written here land in the same partition, which is what joins rely on.
Source: org.apache.kafka.common.utils.Utils.murmur2, BuiltInPartitioner.partitionForKey.
"""

from __future__ import annotations

from collections.abc import Callable

from murmurhash2 import murmurhash2

_SEED = 0x9747B28C
_POSITIVE = 0x7FFFFFFF


def murmur2(data: bytes) -> int:
    """The 32-bit hash of the bytes, unsigned.

    >>> murmur2(b"21")
    3321034988
    """
    return murmurhash2(data, _SEED)


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key among so many.

    >>> partition_for(b"a", 2)
    0
    """
    return (murmur2(key) & _POSITIVE) % partitions


def partitioner_for(partitions: int) -> Callable[[bytes], int]:
    """f(key) -> `partition_for` of it, for hot loops."""
    return lambda key: (murmurhash2(key, _SEED) & _POSITIVE) % partitions
