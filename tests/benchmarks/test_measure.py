"""What a run is measured by."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import profile
from benchmarks.compare.__main__ import chosen
from benchmarks.compare.errors import PeerMissingError
from benchmarks.compare.java import compiled
from benchmarks.compare.measure import Figures, PeerFailedError, Process, Sample, Usage, figures
from benchmarks.compare.peers import find_python, install

ROOT = Path(__file__).parents[2]

# A child that has used a third of a second of CPU and 64 MiB, and waits.
WORK = """
import time
block = bytearray(64 << 20)
begun = time.process_time()
while time.process_time() - begun < 0.3:
    pass
print("ready", flush=True)
time.sleep(60)
"""
PARENT = f"""
import subprocess, sys
subprocess.run([sys.executable, "-c", {WORK!r}])
"""


def test_usage_counts_children() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout is not None
            parent.stdout.readline()
            usage = Usage.of(parent.pid)
        finally:
            for children in Path(f"/proc/{parent.pid}/task").glob("*/children"):
                for child in children.read_text().split():
                    os.kill(int(child), 9)
            parent.kill()
    assert usage.cpu_s >= 0.3
    assert usage.peak_bytes > 64 << 20


def test_usage_of_a_process_that_has_gone_is_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert Usage.of(process.pid) == Usage(0.0, 0)


def test_figures_are_those_after_the_warm_up() -> None:
    samples = [
        Sample(0.0, 0, Usage(0.0, 0)),
        Sample(10.0, 100, Usage(50.0, 1 << 20)),
        Sample(11.0, 250, Usage(51.0, 2 << 20)),
        Sample(13.0, 1250, Usage(52.0, 3 << 20)),
    ]
    assert figures(samples, warm_up=0.2) == Figures(500.0, 1000.0, 3.0)


def test_a_run_of_one_commit_is_taken_whole() -> None:
    samples = [Sample(0.0, 0, Usage(0.0, 0)), Sample(2.0, 1000, Usage(1.0, 1 << 20))]
    assert figures(samples, warm_up=0.2) == Figures(500.0, 1000.0, 1.0)


def test_a_process_that_ends_is_reported_with_its_last_words(tmp_path: Path) -> None:
    process = Process([sys.executable, "-c", "raise SystemExit('no broker')"], dict(os.environ), tmp_path)
    process._popen.wait()
    with pytest.raises(PeerFailedError, match=r"exit code 1:\nno broker"):
        process.check()
    process.stop()


def test_a_process_dies_with_a_benchmark_that_is_killed(tmp_path: Path) -> None:
    program = f"""
import os, pathlib, time
from benchmarks.compare.measure import Process
print(Process(["sleep", "600"], dict(os.environ), pathlib.Path({str(tmp_path)!r})).pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE) as benchmark:
        assert benchmark.stdout is not None
        peer = psutil.Process(int(benchmark.stdout.readline()))
        benchmark.kill()
    peer.wait(timeout=30)  # raises if it goes on


def test_a_peer_that_cannot_beinstall_is_missing(tmp_path: Path) -> None:
    with pytest.raises(PeerMissingError, match="cannot install"):
        install(tmp_path / "peer", str(tmp_path / "no-such-package.whl"), oldest=(3, 9))


def test_a_peer_whosefind_python_is_not_there_is_missing() -> None:
    with pytest.raises(PeerMissingError, match=r"needs Python 3\.90"):
        find_python((3, 90))


def test_without_a_jdk_kafka_streams_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(PeerMissingError, match="no JDK"):
        compiled(tmp_path, [])


def test_names_that_are_not_known_are_refused() -> None:
    assert chosen("a,b", ["a", "b", "c"]) == ["a", "b"]
    with pytest.raises(Exception, match="unknown: d; there are a, b, c"):
        chosen("a,d", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("path", "text", "stage"),
    [
        ("/x/streamlib/kafka/fetcher.py", "KafkaFetcher._fill  batches = read", "fetch, read batches"),
        ("/x/streamlib/engine/operators/sink.py", "encoder.encode  raw_value = encode_value(value)", "serialise"),
        ("/x/streamlib/engine/operators/stateless.py", "filter.node  if keep(value):", "process"),
        ("/x/streamlib/rocksdb.py", "RocksDBBackend.write  self._db.write(batch)", "RocksDB write"),
        ("/x/streamlib/kafka/protocol/codec.py", "decode  return read(data)", None),
        ("/usr/lib/python3/asyncio/events.py", "Handle._run  self._context.run(", None),
        (profile.__file__, "main profile, floors = run_async(", None),
        (profile.__file__, "_processed await anyio.sleep(", "the profiler"),
    ],
)
def test_lines_are_counted_for_their_stage(path: str, text: str, stage: str | None) -> None:
    assert profile.stage_of(path, text) == stage
