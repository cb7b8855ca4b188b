"""What a task counts for each record, if it is asked to (`metrics_recording_level="DEBUG"`): otherwise nothing is."""

from __future__ import annotations

from typing import Any

from streamlib.engine.inputs import NodeFn
from streamlib.records import Headers


class CacheCount:
    """The updates that came to a record cache, and those that went on."""

    __slots__ = ("added", "passed")

    def __init__(self) -> None:
        self.added = 0
        self.passed = 0


class Counts:
    """Of one task: the records that came to each of its nodes, and what its record caches did. They outlive starts."""

    def __init__(self) -> None:
        self.nodes: dict[str, int] = {}
        self.caches: dict[str, CacheCount] = {}

    def node(self, node: str, compiled: NodeFn) -> NodeFn:
        """The compiled node, counted."""
        nodes = self.nodes
        nodes.setdefault(node, 0)

        def counted(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            nodes[node] += 1
            compiled(key, value, timestamp, headers)

        return counted

    def added(self, store: str, add: NodeFn) -> NodeFn:
        """A record cache's `add`, counted."""
        of_cache = self.caches.setdefault(store, CacheCount())

        def counted(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            of_cache.added += 1
            add(key, value, timestamp, headers)

        return counted

    def passed(self, store: str, forward: NodeFn) -> NodeFn:
        """What comes after a record cache, counted."""
        of_cache = self.caches.setdefault(store, CacheCount())

        def counted(key: Any, value: Any, timestamp: int, headers: Headers) -> None:
            of_cache.passed += 1
            forward(key, value, timestamp, headers)

        return counted
