"""A drawing as a Mermaid flowchart, which GitHub and many documentation tools show as a picture."""

from __future__ import annotations

import re

from streamlib.topology.drawing import Arrow, Drawing, Shape, ShapeKind

_OUTLINES: dict[ShapeKind, tuple[str, str]] = {
    "topic": ("[/", "/]"),
    "source": ("([", "])"),
    "processor": ("[", "]"),
    "sink": ("([", "])"),
    "store": ("[(", ")]"),
}
_SPECIAL = re.compile(r"[^A-Za-z0-9 ._:-]")


def mermaid(drawing: Drawing) -> str:
    """The text of the flowchart."""
    lines = ["flowchart TD", *(f"    {_shape(topic)}" for topic in drawing.topics)]
    for group in drawing.groups:
        lines.append(f"    subgraph {group.id}[{_quoted(group.text)}]")
        lines += (f"        {_shape(shape)}" for shape in group.shapes)
        lines.append("    end")
    lines += (f"    {_arrow(arrow)}" for arrow in drawing.arrows)
    return "\n".join(lines) + "\n"


def _shape(shape: Shape) -> str:
    left, right = _OUTLINES[shape.kind]
    return f"{shape.id}{left}{_quoted(shape.text)}{right}"


def _arrow(arrow: Arrow) -> str:
    return f"{arrow.tail} {'-.-' if arrow.is_store else '-->'} {arrow.head}"


def _quoted(text: str) -> str:
    """Text in quotes. Characters that mean something to Mermaid or HTML are written as `#<number>;`."""
    return '"' + _SPECIAL.sub(lambda found: f"#{ord(found.group())};", text) + '"'
