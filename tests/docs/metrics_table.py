"""The table of metrics on the page about monitoring, made of the catalogue: `python -m tests.docs.metrics_table`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamlib.metrics import COMMON_LABELS, GROUPS, Group, catalogue
from streamlib.monitoring.prometheus import exported_name

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "monitoring.md"
MARK = "## All metrics\n"


def intro() -> str:
    """What is written by hand."""
    return PAGE.read_text().partition(MARK)[0]


def table() -> str:
    """A section for each group."""
    return MARK + "".join(map(_section, GROUPS))


def _section(group: type[Group]) -> str:
    prefix, labels = GROUPS[group]
    all_labels = ", ".join(f"`{label}`" for label in (*COMMON_LABELS, *labels))
    text = " ".join((group.__doc__ or "").split())
    head = f"\n### {prefix.replace('_', ' ').capitalize()}\n\n{text} Labels: {all_labels}.\n\n"
    return head + "| Prometheus | kind | unit | level | |\n| --- | --- | --- | --- | --- |\n" + "".join(_rows(group))


def _rows(group: type[Group]) -> Iterator[str]:
    prefix, _ = GROUPS[group]
    for name, metric in catalogue(group).items():
        exported = exported_name(f"{prefix}_{name}", metric)
        yield f"| `{exported}` | {metric.kind} | {metric.unit} | {metric.level} | {metric.text} |\n"


if __name__ == "__main__":
    PAGE.write_text(intro() + table())
