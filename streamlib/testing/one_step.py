"""A step of the DSL, tried out on a few records; what the examples in the documentation run."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from streamlib.dsl.builder import StreamsBuilder
from streamlib.dsl.kstream import KStream
from streamlib.testing.driver import TopologyTestDriver


def run_stream(
    steps: Callable[[KStream[str, int]], KStream[Any, Any]],
    records: Iterable[tuple[str | None, int | None] | tuple[str | None, int | None, int]],
) -> list[tuple[Any, Any]]:
    """What `steps` makes of these keys and values, as (key, value) pairs. A third field is a record's time in ms, which
    is zero without.

    >>> run_stream(lambda stream: stream.map_values(lambda value: value + 1), [("a", 1)])
    [('a', 2)]
    """
    builder = StreamsBuilder()
    result = steps(builder.stream("in", key=str, value=int))
    result.to("out")
    point = result._point  # the types the steps have come to
    with TopologyTestDriver(builder.build()) as driver:
        topic = driver.input_topic("in", key=str, value=int)
        for record in records:
            topic.pipe_input(*record)
        return driver.output_topic("out", key=point.key, value=point.value).read_key_values()
