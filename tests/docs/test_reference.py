"""The reference has every public name; that it builds without a warning is checked by `make test`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import streamlib
import streamlib.testing

API = Path(__file__).parents[2] / "docs" / "pages" / "api"
DESCRIBED = frozenset(
    name for page in API.glob("*.md") for name in re.findall(r"^::: (\S+)$", page.read_text(), flags=re.MULTILINE)
)


@pytest.mark.parametrize("module", [streamlib, streamlib.testing], ids=lambda module: module.__name__)
def test_every_public_name_is_in_the_reference(module: object) -> None:
    public = {f"{module.__name__}.{name}" for name in module.__all__}  # type: ignore[attr-defined]
    assert public - DESCRIBED == set()
