"""`streamlib run` as a user runs it, on the broker that lets nobody in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.security.conftest import KEY_PASSWORD, PASSWORD

COUNT_WORDS = """
from streamlib import StreamsBuilder

builder = StreamsBuilder()
counts = builder.stream("{name}-in", key=str, value=str).flat_map_values(str.split)
counts.group_by(lambda _, word: word, key=str).count(store="counts").to_stream().to("{name}-out")
topology = builder.build()
"""
WRONG = "W0rse-never-shown"


class Ended(msgspec.Struct, frozen=True):
    """How a command ended, and all it wrote."""

    code: int
    output: str
    seconds: float

    @property
    def errors(self) -> list[str]:
        return [line for line in self.output.splitlines() if line.startswith("error: ")]


def run(folder: Path, name: str, settings: dict[str, Any], *arguments: str, command: str = "run") -> Ended:
    """`streamlib run`, with its settings in the environment and as loud as can be."""
    env = environment(folder, name, settings)
    words = [sys.executable, "-m", "streamlib", command, *arguments]
    if command == "run":
        words += ["words.py", "--log-level", "debug"]
    started = time.monotonic()
    done = subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    return Ended(done.returncode, done.stdout + done.stderr, time.monotonic() - started)


def environment(folder: Path, name: str, settings: dict[str, Any]) -> dict[str, str]:
    """Where `words.py` in the folder counts words, with these settings."""
    (folder / "words.py").write_text(COUNT_WORDS.format(name=name))
    settings = {"application_id": name, "processing_guarantee": "exactly_once_v2", "state_dir": folder, **settings}
    return {**os.environ, **{f"STREAMLIB_{key.upper()}": str(value) for key, value in settings.items()}}


def refused(ended: Ended, *parts: str) -> None:
    assert ended.code == 1, ended.output
    assert len(ended.errors) == 1, ended.output
    for part in parts:
        assert part in ended.errors[0], ended.errors[0]
    for secret in (PASSWORD, WRONG, KEY_PASSWORD):
        assert secret not in ended.output
    assert ended.seconds < 30
