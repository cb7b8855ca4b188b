"""`streamlib topology`: what a topology is made of, in Kafka Streams' words."""

from __future__ import annotations

from typing import Annotated

import typer

from streamlib.cli.target import load_target

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:NAME",
        help="A module or file, and in it a Topology, a StreamsBuilder, or a function that returns one.",
    ),
]


def topology(target: TargetArgument) -> None:
    """Print the description of a topology: its subtopologies, nodes and stores.

    Example: streamlib topology examples/word_count.py:topology
    """
    print(str(load_target(target).topology.describe()).rstrip())
