"""Kafka's jars: fetched once into the local Maven cache, and checked before every use.

A tested Kafka version has a lock file `locks/kafka-VERSION.lock`: one line for each jar, its SHA-256 and its
Maven coordinate. Other versions are resolved from their POM, unlocked.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from streamlib.testing.broker.errors import BrokerError, BrokerExtraMissingError, JarMismatchError

if TYPE_CHECKING:
    from jgo.maven import Artifact, MavenContext

DEFAULT_VERSION = "4.3.1"
LOCK_DIR = Path(__file__).with_name("locks")
_PARALLEL_DOWNLOADS = 4

Progress = Callable[[int, int], None]
"""Called with the number of jars at hand and the number needed."""


class Jar(msgspec.Struct, frozen=True):
    """One jar of a broker: `group:artifact:version`, and the SHA-256 it must have, if one is known."""

    coordinate: str
    sha256: str | None = None


def classpath(version: str, progress: Progress | None = None, *, lock_dir: Path = LOCK_DIR) -> list[Path]:
    """The jars that run Kafka `version`, downloaded where missing.

    Raises:
        BrokerExtraMissingError: the resolver is not installed.
        JarMismatchError: a jar differs from the lock file.
        BrokerError: there is no such version, or a download failed.
    """
    context = _maven()
    jars = read_lock(version, lock_dir) or _unlocked(context, version)
    paths: list[Path] = []
    with ThreadPoolExecutor(_PARALLEL_DOWNLOADS) as pool:
        for path in pool.map(partial(_fetch, context), jars):
            paths.append(path)
            if progress is not None:
                progress(len(paths), len(jars))
    return paths


def is_locked(version: str, lock_dir: Path = LOCK_DIR) -> bool:
    """Whether this Kafka version is one that streamlib is tested with."""
    return _lock_path(version, lock_dir).exists()


def read_lock(version: str, lock_dir: Path = LOCK_DIR) -> list[Jar]:
    """The jars of a locked version; none if the version has no lock file."""
    if not is_locked(version, lock_dir):
        return []
    lines = _lock_path(version, lock_dir).read_text().splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return [Jar(coordinate, sha256) for sha256, coordinate in pairs]


def lock_text(version: str) -> str:
    """The contents of a new lock file: what the version's POM asks for today, with the sums of those jars."""
    context = _maven()
    lines = [f"# The jars that run Kafka {version}: SHA-256, Maven coordinate. Checked before every start."]
    lines += [f"{_sha256(_fetch(context, jar))}  {jar.coordinate}" for jar in _unlocked(context, version)]
    return "\n".join(lines) + "\n"


def _lock_path(version: str, lock_dir: Path) -> Path:
    return lock_dir / f"kafka-{version}.lock"


def _maven(cache: Path | None = None) -> MavenContext:
    try:
        from jgo.maven import MavenContext
    except ImportError as error:
        raise BrokerExtraMissingError from error
    return MavenContext(repo_cache=cache, timeout=60)


def _fetch(context: MavenContext, jar: Jar) -> Path:
    """A jar's path in the cache. It gets there only whole and checked: a killed download leaves nothing."""
    artifact = context.create_dependency(jar.coordinate).artifact
    path = artifact.cached_path
    assert path is not None
    if path.exists():
        _check(path, jar)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=context.repo_cache, prefix=".streamlib-") as staging:
        fresh = _download(_maven(Path(staging)), jar)
        _check(fresh, jar)
        os.replace(fresh, path)
    return path


def _download(context: MavenContext, jar: Jar) -> Path:
    try:
        return context.create_dependency(jar.coordinate).artifact.resolve()
    except (RuntimeError, OSError) as error:
        raise BrokerError(f"cannot download {jar.coordinate}: {error}") from error


def _check(path: Path, jar: Jar) -> None:
    if jar.sha256 is None or _sha256(path) == jar.sha256:
        return
    raise JarMismatchError(
        f"{jar.coordinate} at {path} has SHA-256 {_sha256(path)}, the lock file says {jar.sha256}; "
        "delete the file and start again, and distrust its source if the sum differs again"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unlocked(context: MavenContext, version: str) -> list[Jar]:
    kafka = f"org.apache.kafka:kafka_2.13:{version}"
    runtime = _resolve(context, kafka)
    # Resolved apart: jgo applies the version table of every root's parent to all roots, and log4j's parent
    # would then choose the version of kafka-clients. On what both need, Kafka's choice wins.
    binding = _resolve(context, _logging_binding(runtime))
    chosen = {(a.groupId, a.artifactId): a.version for a in (*binding, *runtime)}
    return [Jar(f"{group}:{name}:{version}") for (group, name), version in sorted(chosen.items())]


def _logging_binding(runtime: Sequence[Artifact]) -> str:
    """What connects slf4j to the log library that this Kafka needs; the server's POM leaves it out.

    Kafka 4 logs with log4j2 (KIP-653), Kafka 3 with reload4j.
    """
    versions = {artifact.artifactId: artifact.version for artifact in runtime}
    if "log4j-core" in versions:
        return f"org.apache.logging.log4j:log4j-slf4j-impl:{versions['log4j-core']}"
    return f"org.slf4j:slf4j-reload4j:{versions['slf4j-api']}"


def _resolve(context: MavenContext, coordinate: str) -> list[Artifact]:
    try:
        roots, transitive = context.resolver.resolve([context.create_dependency(coordinate)])
    except (RuntimeError, OSError, ValueError) as error:
        raise BrokerError(f"cannot resolve {coordinate}: {error}") from error
    return [d.artifact for d in (*roots, *(t for t in transitive if t.scope in ("compile", "runtime")))]


if __name__ == "__main__":
    import sys

    sys.stdout.write(lock_text(sys.argv[1]))
