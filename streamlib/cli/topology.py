"""`streamlib topology`: what a topology is made of, in Kafka Streams' words."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamlib.cli.completion import complete_target
from streamlib.cli.diff.snapshot import take_snapshot
from streamlib.cli.options import ApplicationIdOption, ConfigOption, JsonOption, SetOption
from streamlib.cli.picture import draw_picture
from streamlib.cli.settings import GivenSettings, load_config
from streamlib.cli.target import load_target

TargetArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:NAME",
        help="A module or file, and in it a Topology, a StreamsBuilder, or a function that returns one.",
        autocompletion=complete_target,
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


def topology(
    target: TargetArgument,
    picture: PictureOption = None,
    application_id: ApplicationIdOption = None,
    config: ConfigOption = None,
    set_: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Print the description of a topology: its subtopologies, nodes and stores; or draw it.

    As JSON it is what 'streamlib diff' compares a later one with: nodes, stores, topics, and what rows look like, under
    the names that an application with these settings gives them.

    Example: streamlib topology examples/word_count.py:topology --picture word_count.svg

    Example: streamlib topology examples/word_count.py:topology --json > topology.json
    """
    loaded = load_target(target)
    if json:
        given = GivenSettings(application_id=application_id, file=config, others=set_ or [])
        print(take_snapshot(loaded.topology, load_config(given, loaded).application_id).encoded())
    elif picture is None:
        print(str(loaded.topology.describe()).rstrip())
    if picture is not None:
        draw_picture(loaded.topology, picture)
