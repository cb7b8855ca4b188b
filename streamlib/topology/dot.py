"""A drawing in Graphviz' language, DOT."""

from __future__ import annotations

from streamlib.topology.drawing import Arrow, Drawing, Shape, ShapeKind

_LOOKS: dict[ShapeKind, str] = {
    "topic": "shape=parallelogram, style=filled, fillcolor=lightyellow",
    "source": "shape=box, style=rounded",
    "processor": "shape=box",
    "sink": "shape=box, style=rounded",
    "store": "shape=cylinder, style=filled, fillcolor=lightblue",
}


def dot(drawing: Drawing) -> str:
    """The text of the graph."""
    lines = ["digraph topology {", '    node [fontname="sans-serif", fontsize=11]', '    graph [fontname="sans-serif"]']
    lines += (f"    {_shape(topic)}" for topic in drawing.topics)
    for group in drawing.groups:
        lines.append(f"    subgraph cluster_{group.id} {{")
        lines.append(f"        label={_quoted(group.text)}")
        lines += (f"        {_shape(shape)}" for shape in group.shapes)
        lines.append("    }")
    lines += (f"    {_arrow(arrow)}" for arrow in drawing.arrows)
    return "\n".join((*lines, "}")) + "\n"


def _shape(shape: Shape) -> str:
    return f"{shape.id} [label={_quoted(shape.text)}, {_LOOKS[shape.kind]}]"


def _arrow(arrow: Arrow) -> str:
    return f"{arrow.tail} -> {arrow.head}" + (" [dir=none, style=dashed]" if arrow.is_store else "")


def _quoted(text: str) -> str:
    r"""Text in quotes; a backslash would otherwise begin a line break or a name of Graphviz' own."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
