"""Examples in docstrings are collected in the library; in here, only what is called a test."""

from __future__ import annotations

from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2] / "shared" / "conformance" / "cases"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--corpus", type=Path, default=CORPUS, help="a folder of conformance cases (tests/conformance)")
    parser.addoption("--all-errors", action="store_true", help="every error at every request (tests/errors)")
    parser.addoption("--simulation-seeds", type=int, default=2_000, help="how many (tests/simulation)")
    parser.addoption("--all-on-a-broker", action="store_true", help="run every conformance topology on a real broker")


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """`--doctest-modules` would import every helper, programs for subprocesses among them."""
    is_helper = collection_path.suffix == ".py" and not collection_path.name.startswith("test_")
    return True if is_helper else None
