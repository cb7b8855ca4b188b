"""Drawing a topology with Graphviz, which the extra `picture` brings along."""

from __future__ import annotations

from pathlib import Path

from streamlib.cli.errors import UsageError
from streamlib.errors import StreamsError
from streamlib.topology.topology import Topology

FORMATS = ("svg", "png", "pdf", "dot", "mmd")
"""By what a file's name may end; the last two are text: Graphviz' language, and Mermaid's."""


def draw_picture(topology: Topology, file: Path) -> None:
    """Write a picture of a topology to a file; the end of its name says what kind of picture.

    Raises:
        UsageError: it is none of `FORMATS`, Graphviz is not installed, or the file cannot be written.
        StreamsError: Graphviz failed.
    """
    format_ = file.suffix.removeprefix(".").lower()
    if format_ not in FORMATS:
        raise UsageError(f"--picture {file}: a picture's name ends with one of .{', .'.join(FORMATS)}")
    try:
        file.write_bytes(_content(topology, format_))
    except OSError as error:
        raise UsageError(f"--picture {file}: {error.strerror or error}") from error


def _content(topology: Topology, format_: str) -> bytes:
    match format_:
        case "mmd":
            return topology.to_mermaid().encode()
        case "dot":
            return topology.to_dot().encode()
        case _:
            return _rendered(topology.to_dot(), format_)


def _rendered(dot: str, format_: str) -> bytes:
    try:
        import pygraphviz
    except ImportError as error:
        raise UsageError(
            f"--picture needs Graphviz: pip install 'streamlib[picture]', which brings it along ({error}); "
            "or write a .dot or .mmd file, which needs nothing"
        ) from error
    try:
        image = pygraphviz.AGraph(string=dot).draw(format=format_, prog="dot")
    except OSError as error:  # the program could not be started, or did not like what it read
        raise StreamsError(f"--picture: Graphviz could not draw: {error}") from error
    assert isinstance(image, bytes), "drawn without a path"
    return image
