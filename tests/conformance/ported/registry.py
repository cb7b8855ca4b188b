"""What the ported topologies share: where they are registered, and a few short forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from streamlib import KStream, ProcessorContext, Record, Serdes, StreamsBuilder, Topology

TOPOLOGIES: dict[str, Callable[[StreamsBuilder], None]] = {}
INTEGER = Serdes.integer()


def dsl(steps: Callable[[StreamsBuilder], None]) -> Callable[[StreamsBuilder], None]:
    """Registers a topology under the function's name."""
    TOPOLOGIES[steps.__name__] = steps
    return steps


def raw(steps: Callable[[Topology], None]) -> Callable[[Topology], None]:
    """The same for topologies made node by node."""
    TOPOLOGIES[steps.__name__] = lambda builder: steps(builder.topology)
    return steps


def texts(builder: StreamsBuilder, *topics: str) -> KStream[str, str]:
    return builder.stream(topics, key=str, value=str)


def longs(builder: StreamsBuilder, topic: str = "in") -> KStream[str, int]:
    return builder.stream(topic, key=str, value=int)


def supplier(process: Callable[[ProcessorContext, Record[Any, Any]], object]) -> Callable[[], Any]:
    """A processor of nothing but this function."""

    class Function:
        def init(self, context: ProcessorContext) -> None:
            self.context = context

        def process(self, record: Record[Any, Any]) -> None:
            process(self.context, record)

    return Function


def shown(value: object) -> str:
    """A value as Java joins it into text."""
    return "null" if value is None else str(value)
