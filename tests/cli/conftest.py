"""Modules to load, and the command as a user runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

MODULE = """
from streamlib import StreamsBuilder

builder = StreamsBuilder()
builder.stream("in", key=str, value=str).map_values(str.upper, value=str).to("out")
topology = builder.build()
not_a_topology = 3

def make() -> StreamsBuilder:
    builder = StreamsBuilder()
    builder.stream("in", key=str, value=str).to("made")
    return builder

def make_topology():
    return make().build()

def needs_argument(topic):
    return builder

def returns_none():
    return None

def explode():
    return int("x")
"""

Write = Callable[[str, str], str]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def write_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Write]:
    """Writes a module into a folder that is the current one, and forgets it afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    known = set(sys.modules)

    def write(name: str, text: str) -> str:
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    yield write
    for name in set(sys.modules) - known:
        if getattr(sys.modules[name], "__file__", "") and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


@pytest.fixture
def streamlib(tmp_path: Path) -> Command:
    """Runs the command in a folder of its own and returns what it printed."""

    def run(*arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "streamlib", *arguments],
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
