"""A comparison for people: lines, or Markdown for a pull request."""

from __future__ import annotations

from streamlib.cli.diff.changes import Change, Comparison

_VERDICTS = {
    True: "compatible: nothing that is kept is lost",
    False: "NOT COMPATIBLE: what is kept would be lost or misread",
}


def as_lines(comparison: Comparison) -> str:
    """A few lines for each change, the worst first; the verdict comes last."""
    lines = [line for change in comparison.changes for line in _lines(change)]
    return "\n".join([*lines, _VERDICTS[comparison.compatible]])


def as_markdown(comparison: Comparison) -> str:
    """The verdict and a table."""
    head = [f"**{_VERDICTS[comparison.compatible]}**"]
    if comparison.changes:
        head += ["", "| | what | what happens | what to do |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *map(_row, comparison.changes)])


def _lines(change: Change) -> list[str]:
    advice = [f"        do: {change.advice}"] if change.advice else []
    return [f"{change.level:<7} {_title(change)}", f"        {change.what}", *advice]


def _row(change: Change) -> str:
    cells = (change.level, f"{change.kind} `{change.subject}`", change.what, change.advice)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _title(change: Change) -> str:
    return f"{change.kind} {change.subject}" + (f" -> {change.now}" if change.now else "")
