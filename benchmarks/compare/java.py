"""Kafka Streams as a peer: its jars from Maven, the program of `benchmarks/java` compiled with the JDK at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from benchmarks.compare.errors import PeerMissingError
from streamlib.testing.broker import DEFAULT_VERSION, BrokerError
from streamlib.testing.broker.jars import classpath
from streamlib.testing.broker.node import java

SOURCE = Path(__file__).parents[1] / "java" / "ComparedJobs.java"
_BYTECODE = "17"
# A heap that is enough, not a quarter of the machine's memory as by default. All else is the JVM's own choice.
_JVM_OPTIONS = ("-Xmx1g", "--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow")


def java_command(cache: Path) -> list[str]:
    """The command that runs the program, compiled if it has changed.

    Raises:
        PeerMissingError: there is no JDK, it does not compile, or the jars are not to be had.
    """
    try:
        jars = classpath(DEFAULT_VERSION)
        jars += _streams_jars(DEFAULT_VERSION)
        return [java(), *_JVM_OPTIONS, "-cp", _path([compiled(cache, jars), *jars]), SOURCE.stem]
    except BrokerError as error:
        raise PeerMissingError(str(error)) from error


def _streams_jars(version: str) -> list[Path]:
    """Kafka Streams and RocksDB; all else that it needs, a broker needs too."""
    from jgo.maven import MavenContext

    context = MavenContext(timeout=60)
    try:
        roots, others = context.resolver.resolve(
            [context.create_dependency(f"org.apache.kafka:kafka-streams:{version}")]
        )
        wanted = [d.artifact for d in (*roots, *others) if d.artifact.artifactId in ("kafka-streams", "rocksdbjni")]
        return [artifact.resolve() for artifact in wanted]
    except (RuntimeError, OSError, ValueError) as error:
        raise PeerMissingError(f"cannot download Kafka Streams {version}: {error}") from error


def compiled(cache: Path, jars: list[Path]) -> Path:
    """The folder with the classes.

    Raises:
        PeerMissingError: there is no JDK, or it does not compile.
    """
    classes = cache / f"java-{DEFAULT_VERSION}"
    result = classes / f"{SOURCE.stem}.class"
    if result.exists() and result.stat().st_mtime > SOURCE.stat().st_mtime:
        return classes
    javac = _javac()
    if javac is None:
        raise PeerMissingError("there is no JDK: no javac on the PATH, and none under JAVA_HOME")
    command = [javac, "--release", _BYTECODE, "-cp", _path(jars), "-d", str(classes), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PeerMissingError(f"{SOURCE.name} does not compile:\n{done.stderr}")
    return classes


def _javac() -> str | None:
    home = os.environ.get("JAVA_HOME")
    return shutil.which("javac", path=f"{home}/bin" if home else None) or shutil.which("javac")


def _path(entries: list[Path]) -> str:
    return os.pathsep.join(map(str, entries))
