"""Which partition a key belongs to: Kafka's murmur2, bit for bit.

A record written by a Java producer and one written here land in the same partition, which is what joins rely on.
Source: org.apache.kafka.common.utils.Utils.murmur2, BuiltInPartitioner.partitionForKey.
"""

from __future__ import annotations

from struct import unpack_from

_SEED = 0x9747B28C
_M = 0x5BD1E995
_MASK = 0xFFFFFFFF

CACHED_KEYS = 20_000


def murmur2(data: bytes) -> int:
    """The 32-bit hash of the bytes, unsigned.

    >>> murmur2(b"21")
    3321034988
    """
    length = len(data)
    h = _SEED ^ length
    words = length >> 2
    for k in unpack_from(f"<{words}I", data):
        k = k * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if length & 3:
        h = (h ^ int.from_bytes(data[words << 2 :], "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_for(key: bytes, partitions: int) -> int:
    """The partition of a key among so many.

    >>> partition_for(b"a", 2)
    0
    """
    return (murmur2(key) & 0x7FFFFFFF) % partitions


class KeyPartitioner:
    """`partition_for` with a bounded memory: keys come again and again, hashing them in Python does not pay."""

    def __init__(self, partitions: int, cached_keys: int = CACHED_KEYS) -> None:
        self._partitions = partitions
        self._cached_keys = cached_keys
        self._cache: dict[bytes, int] = {}

    def __call__(self, key: bytes) -> int:
        """The partition of a key."""
        partition = self._cache.get(key)
        if partition is None:
            if len(self._cache) >= self._cached_keys:
                self._cache.clear()
            partition = self._cache[key] = partition_for(key, self._partitions)
        return partition
