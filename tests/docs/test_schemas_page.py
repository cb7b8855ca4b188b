"""The examples of the page about schemas run, as one program."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "pages" / "schemas.md"


def test_the_examples_run() -> None:
    names: dict[str, Any] = {"__name__": "page"}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    assert "totals" in str(names["topology"].describe())
    assert names["Revenue"](3).cents == 3
