"""Someone new to it, on an empty machine: README and tutorial do what they say, command by command.

The library is the wheel of this checkout, in a virtual environment of its own, with what it requires and nothing else.
Two things are not as on an empty machine: what pip and Maven have fetched before is not fetched again, and the broker
has a port that is free.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, README, ROOT, Block, fenced
from tests.docs.terminal import Terminal, follow, is_as_shown

TUTORIAL = PAGES / "tutorial.md"

pytestmark = [pytest.mark.broker, pytest.mark.slow]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def env(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    """Little more than a PATH and an empty home."""
    home = tmp_path_factory.mktemp("home")
    kept = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_", "LANG", "LC_"))}
    (home / ".m2").symlink_to(Path.home() / ".m2")
    return {
        **kept,
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "PIP_CACHE_DIR": os.environ.get("PIP_CACHE_DIR") or str(Path.home() / ".cache" / "pip"),
        "PIP_FIND_LINKS": f"{os.environ.get('PIP_FIND_LINKS', '')} {wheel.parent}".strip(),
        "PIP_QUIET": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "STREAMLIB_BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}",
    }


@pytest.fixture(scope="module")
def installed(env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The virtual environment as README makes it; both pages say the same, and it is made once."""
    folder = tmp_path_factory.mktemp("installed")
    first, *_ = (block for block in fenced(README) if block.language == "sh")
    assert "pip install" in first.code
    assert first.code in TUTORIAL.read_text()
    with Terminal(folder, env) as terminal:
        output, code = terminal.run(first.code)
    assert code == 0, output
    return folder / ".venv"


def test_what_a_page_shows_is_compared() -> None:
    assert is_as_shown("b\t1\na\t2\n", "a\t2\nb\t1\n")
    assert not is_as_shown("a\t2\n", "a\t1\n")
    assert not is_as_shown("a\t2\na\t2\n", "a\t2\n")
    assert is_as_shown("x\ny\nend 3 s\n", "...\nend ... s\n")
    assert not is_as_shown("x\nother\n", "...\nend\n")
    assert is_as_shown("a@2026-01-01 10:00:00.000Z\t1\n", "a@2025-05-05 11:11:11.000Z\t1\n")


@pytest.mark.parametrize("page", [README, TUTORIAL], ids=lambda page: page.stem)
def test_the_page_does_what_it_says(page: Path, env: Mapping[str, str], installed: Path, tmp_path: Path) -> None:
    (tmp_path / ".venv").symlink_to(installed)
    address = env["STREAMLIB_BOOTSTRAP_SERVERS"]
    port = address.partition(":")[2]
    replaced = {"broker start": f"broker start --port {port}", "127.0.0.1:9092": address}
    blocks = without_installing(fenced(page))
    with Terminal(tmp_path, env) as terminal:
        terminal.run(". .venv/bin/activate")
        try:
            done = "\n".join(follow(terminal, tmp_path, blocks, replaced))
        finally:
            terminal.run("streamlib broker stop")
    assert "streamlib run" in done
    assert "streamlib broker stop" in done


def without_installing(blocks: list[Block]) -> list[Block]:
    """All but the first block, which `installed` has run."""
    at = next(number for number, block in enumerate(blocks) if block.language == "sh")
    return [*blocks[:at], *blocks[at + 1 :]]


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port
