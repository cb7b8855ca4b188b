"""The demo's topology: lines -> words -> repartitioned by word -> counts. The same as examples/word_count.py."""

from __future__ import annotations

import os

from streamlib import StreamsBuilder
from streamlib.cli.demo.verdict import words_of
from streamlib.topology.topology import Topology

PREFIX_VARIABLE = "WORD_COUNT_PREFIX"


def topology() -> Topology:
    """Topics get the prefix of the environment, so that each demo has its own."""
    prefix = os.environ.get(PREFIX_VARIABLE, "")
    builder = StreamsBuilder()
    (
        builder.stream(f"{prefix}lines", key=str, value=str)
        .flat_map_values(words_of)
        .group_by(lambda _, word: word, key=str)
        .count(store="counts")
        .to_stream()
        .to(f"{prefix}word-counts")
    )
    return builder.build()
