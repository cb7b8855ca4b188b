"""The type hints say what `dsl.py` beside this file expects of them."""

from __future__ import annotations

from pathlib import Path

from mypy import api

ROOT = Path(__file__).parents[2]


def test_types_are_precise() -> None:
    cache = ROOT / ".mypy_cache" / "typing"  # of its own: another mypy may be running
    files = [
        "--config-file",
        str(ROOT / "pyproject.toml"),
        "--cache-dir",
        str(cache),
        str(Path(__file__).parent / "dsl.py"),
    ]
    report, errors, status = api.run(files)
    assert status == 0, report + errors
