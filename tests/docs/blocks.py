"""The code in pages of the documentation: fenced blocks, indented blocks, and code within lines."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
README = ROOT / "README.md"

_FENCE = re.compile(r"^( *)```([\w-]*) *(.*?)$(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SNIPPET = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)
_TITLE = re.compile(r'title="([^"]+)"')
_INDENTED = re.compile(r"(?:^(?:    .*)?\n)+", re.MULTILINE)
_INLINE = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")


class Block(msgspec.Struct, frozen=True):
    """A piece of code; `language` is empty if it is indented, `title` is the name of the file that it is."""

    page: Path
    line: int
    language: str
    title: str
    code: str

    @property
    def where(self) -> str:
        """For messages and ids."""
        return f"{self.page.name}:{self.line}"


def pages() -> list[Path]:
    """README and all pages, the reference's aside: its examples are docstrings, which run as doctests."""
    examples = sorted((ROOT / "examples").rglob("*.md"))
    return [README, *sorted(PAGES.glob("*.md")), *examples]


def fenced(page: Path) -> list[Block]:
    """In their order; files that are shown are put in."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        indent, language, rest, code = match.groups()
        title = _TITLE.search(rest)
        lines = [line.removeprefix(indent) for line in code.removeprefix("\n").split("\n")]
        line = text.count("\n", 0, match.start()) + 1
        code = _SNIPPET.sub(lambda named: (ROOT / named.group(1)).read_text(), "\n".join(lines))
        found.append(Block(page, line, language, title.group(1) if title else "", code))
    return found


def indented(page: Path) -> list[Block]:
    """Blocks by four spaces, outside of fences."""
    text = _FENCE.sub(lambda match: "\n" * match.group().count("\n"), page.read_text())
    return [
        Block(page, text.count("\n", 0, match.start()) + 1, "", "", re.sub("^    ", "", match.group(), flags=re.M))
        for match in _INDENTED.finditer(text)
        if match.group().strip()
    ]


def inline(page: Path) -> Iterator[str]:
    """Code within lines."""
    text = _FENCE.sub("", page.read_text())
    for match in _INLINE.finditer(text):
        yield " ".join(match.group(1).split())
