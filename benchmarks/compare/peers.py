"""The libraries that are compared: how each is installed, and started.

Every Python library but ours gets a virtual environment of its own in the cache folder, of the Python that runs the
benchmark if the library can do with that, so that no library's choice of dependencies is another's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from benchmarks.compare.errors import PeerMissingError
from benchmarks.compare.java import java_command

PROGRAMS = Path(__file__).with_name("programs")
ROOT = Path(__file__).parents[2]
CACHE_BYTES = 10 << 20  # Kafka Streams' default
EXACTLY_ONCE, AT_LEAST_ONCE = "exactly_once_v2", "at_least_once"


class Task(msgspec.Struct, frozen=True):
    """What a program is told: one job on its topics."""

    job: str
    guarantee: str
    application: str
    bootstrap_servers: str
    input: str
    output: str
    table: str
    state_dir: Path
    commit_interval_ms: int
    cache_bytes: int

    def environment(self) -> dict[str, str]:
        """The variables, as all programs read them."""
        return {f"BENCHMARK_{name.upper()}": str(value) for name, value in msgspec.structs.asdict(self).items()}


Command = Callable[[Task], list[str]]


class Peer(msgspec.Struct, frozen=True):
    """One library, or one way to run it. `prepare` installs what it needs and may raise PeerMissingError."""

    name: str
    prepare: Callable[[Path], Command]
    cached: bool = False
    guarantees: tuple[str, ...] = (EXACTLY_ONCE, AT_LEAST_ONCE)


def default_cache() -> Path:
    """Where environments and classes are kept from run to run."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(home).expanduser() / "streamlib" / "benchmarks"


def environment_of(task: Task) -> Mapping[str, str]:
    """What a process of a peer gets. Temporary files go to the folder that is deleted after the run."""
    return {**os.environ, **task.environment(), "TMPDIR": str(task.state_dir)}


def _streamlib(cache: Path) -> Command:
    return lambda task: streamlib_command(task, workers=1)


def streamlib_command(task: Task, *, workers: int, settings: tuple[str, ...] = ()) -> list[str]:
    """Our own command line."""
    options = {
        "--workers": str(workers),
        "--application-id": task.application,
        "--bootstrap-servers": task.bootstrap_servers,
        "--processing-guarantee": task.guarantee,
        "--log-level": "warning",
    }
    others = (
        f"state_dir={task.state_dir}",
        f"commit_interval_ms={task.commit_interval_ms}",
        f"statestore_cache_max_bytes={task.cache_bytes}",
        *settings,
    )
    command = [sys.executable, "-m", "streamlib", "run", "benchmarks.compare.programs.streamlib_jobs:topology"]
    for name, value in [*options.items(), *(("--set", setting) for setting in others)]:
        command += [name, value]
    return command


def _kafka_streams(cache: Path) -> Command:
    java, *rest = java_command(cache)
    return lambda task: [java, f"-Djava.io.tmpdir={task.state_dir}", *rest]


def _quixstreams(cache: Path) -> Command:
    python = install(cache / "quixstreams", "quixstreams==3.28.1", oldest=(3, 9))
    return lambda task: [python, str(PROGRAMS / "quixstreams_jobs.py")]


def _flechtwerk(cache: Path) -> Command:
    python = install(cache / "flechtwerk", "flechtwerk==0.17.0", "uvloop", oldest=(3, 12))
    return lambda task: [python, str(PROGRAMS / "flechtwerk_jobs.py")]


PEERS = {
    peer.name: peer
    for peer in (
        Peer("streamlib", _streamlib),
        Peer("streamlib-cached", _streamlib, cached=True),
        Peer("kafka-streams", _kafka_streams),
        Peer("kafka-streams-cached", _kafka_streams, cached=True),
        Peer("quixstreams", _quixstreams),
        Peer("flechtwerk", _flechtwerk, guarantees=(EXACTLY_ONCE,)),  # it knows no other
    )
}


def install(folder: Path, *requirements: str, oldest: tuple[int, int]) -> str:
    """The Python of a virtual environment that has these packages.

    Raises:
        PeerMissingError: no Python is new enough, or a package is not to be had.
    """
    python, mark = folder / "bin" / "python", folder / "installed"
    if mark.exists() and mark.read_text() == str(requirements):
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    base = find_python(oldest)
    try:
        _run([base, "-m", "venv", str(folder)])
        _run([str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements])
    except subprocess.CalledProcessError as error:
        raise PeerMissingError(f"cannot install {' '.join(requirements)}: {error.stderr.strip()}") from error
    mark.write_text(str(requirements))
    return str(python)


def find_python(oldest: tuple[int, int]) -> str:
    """This Python, or another on the PATH if this one is too old."""
    if sys.version_info >= oldest:
        return sys.executable
    for minor in range(oldest[1], oldest[1] + 3):
        found = shutil.which(f"python3.{minor}")
        # A version manager's stand-in may be there for a Python that is not chosen.
        if found and subprocess.run([found, "--version"], capture_output=True, check=False).returncode == 0:
            return found
    version = ".".join(map(str, oldest))
    raise PeerMissingError(f"it needs Python {version}, and there is no python{version} or newer on the PATH")


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
