"""What the workers run: one application of several subtopologies whose outputs betray every loss and every repeat.

events --> counts        per key 1, 2, 3 ...                            RocksDB store and changelog
       --> ledger        each input's partition and offset, in order    no state
       --> windows       per key and window 1, 2, 3 ...                 window store; late records are dropped
lines  --> words         per word 1, 2, 3 ...                           behind a repartition topic
"""

from __future__ import annotations

from datetime import timedelta

from streamlib import Materialized, ProcessorContext, Record, StreamsBuilder, TimeWindows
from streamlib.topology.topology import Topology

WINDOW_MS = 5_000
GRACE_MS = 1_000


class Ledger:
    """Writes down which input it was given."""

    def init(self, context: ProcessorContext) -> None:
        self._context = context

    def process(self, record: Record[str, str]) -> None:
        metadata = self._context.record_metadata
        assert metadata is not None
        line = f"{metadata.partition}:{metadata.offset}:{record.value}"
        self._context.forward(record.with_value(line))


def everything(source: str, sink: str) -> Topology:
    """`source` and `sink` are the prefixes of the topics' names."""
    builder = StreamsBuilder()
    events = builder.stream(f"{source}events", key=str, value=str)
    events.group_by_key().count(store="counts").to_stream().to(f"{sink}counts")
    events.process(Ledger, value=str).to(f"{sink}ledger")
    (
        events.group_by_key()
        .windowed_by(TimeWindows.of_size(timedelta(milliseconds=WINDOW_MS), grace=timedelta(milliseconds=GRACE_MS)))
        .count(store=Materialized(name="windows", retention=timedelta(days=1)))
        .to_stream(lambda window, count: f"{window.key}@{window.start}", key=str)
        .to(f"{sink}windows")
    )
    (
        builder.stream(f"{source}lines", key=str, value=str)
        .flat_map_values(str.split)
        .group_by(lambda _, word: word, key=str, value=str, name="word")
        .count(store="words")
        .to_stream()
        .to(f"{sink}words")
    )
    return builder.build()
