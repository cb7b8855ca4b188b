"""Shows the examples of docstrings as code: to Markdown a line that begins with `>>>` is a quotation."""

from __future__ import annotations

from typing import Any

import griffe


class FencedExamples(griffe.Extension):
    """Puts each doctest of a docstring into a code fence before it is read."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = "\n".join(fenced(obj.docstring.value.split("\n")))


def fenced(lines: list[str]) -> list[str]:
    """Lines with fences around examples, which end at an empty line."""
    found: list[str] = []
    inside = False
    for line in lines:
        if line.startswith(">>>") and not inside:
            found += ["```pycon"] if found and not found[-1] else ["", "```pycon"]
            inside = True
        elif inside and not line.strip():
            found.append("```")
            inside = False
        found.append(line)
    return [*found, "```"] if inside else found
