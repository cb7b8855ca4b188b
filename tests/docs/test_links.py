"""Links within the repository lead somewhere, in files that MkDocs does not look at; it checks the pages itself."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

FILES = [*ROOT.glob("*.md"), ROOT / "docs" / "ARCHITECTURE.md", *(ROOT / "docs" / "adr").glob("*.md")]
FILES += sorted((ROOT / "examples").rglob("*.md"))
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(file: Path) -> None:
    broken = [link for link in _LINK.findall(_CODE.sub("", file.read_text())) if not leads(file, link)]
    assert broken == []


def leads(file: Path, link: str) -> bool:
    if link.startswith(("http://", "https://", "mailto:")):
        return True
    path, _, anchor = link.partition("#")
    target = (file.parent / path) if path else file
    if not target.exists():
        return False
    return not anchor or anchor in {anchor_of(heading) for heading in _HEADING.findall(target.read_text())}


def anchor_of(heading: str) -> str:
    """As GitHub and MkDocs make it.

    >>> anchor_of("Amazon MSK with `IAM`")
    'amazon-msk-with-iam'
    """
    return re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip())
