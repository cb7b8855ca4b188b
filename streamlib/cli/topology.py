"""`streamlib topology`: what a topology is made of, in Kafka Streams' words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamlib.cli.picture import draw_picture
from streamlib.cli.target import load_target

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:NAME",
        help="A module or file, and in it a Topology, a StreamsBuilder, or a function that returns one.",
    ),
]

PictureOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Draw it into this file instead: .svg, .png or .pdf with Graphviz (pip install 'streamlib\\[picture]'), "
        ".dot, or .mmd for Mermaid.",
    ),
]


def topology(target: TargetArgument, picture: PictureOption = None) -> None:
    """Print the description of a topology: its subtopologies, nodes and stores; or draw it.

    Example: streamlib topology examples/word_count.py:topology --picture word_count.svg
    """
    loaded = load_target(target).topology
    if picture is None:
        print(str(loaded.describe()).rstrip())
        return
    draw_picture(loaded, picture)
