"""What a comparison says of its runs."""

from __future__ import annotations

import io

from rich.console import Console

from benchmarks.compare.measure import Figures
from benchmarks.compare.report import Run, medians, print_throughput

JOB, GUARANTEE = "keyed-count", "exactly_once_v2"


def run(peer: str, round_: int, records_per_s: float, cpu_s: float) -> Run:
    return Run(JOB, GUARANTEE, peer, round_, Figures(records_per_s, cpu_s, 100.0))


def printed(*runs: Run) -> str:
    text = io.StringIO()
    print_throughput(Console(file=text, width=120), runs)
    return text.getvalue()


def test_medians_are_taken_figure_by_figure() -> None:
    runs = [run("streamlib", 1, 10.0, 5.0), run("streamlib", 2, 30.0, 4.0), run("streamlib", 3, 20.0, 9.0)]
    assert medians(runs, JOB, GUARANTEE, "streamlib") == Figures(20.0, 5.0, 100.0)


def test_one_failed_run_leaves_a_peer_without_figures() -> None:
    failed = Run(JOB, GUARANTEE, "streamlib", 2, problem="3 records were written twice")
    runs = [run("streamlib", 1, 10.0, 5.0), failed]
    assert medians(runs, JOB, GUARANTEE, "streamlib") is None
    assert "failed" in printed(*runs)


def test_ratios_are_to_kafka_streams_with_a_cache_if_the_peer_has_one() -> None:
    text = printed(
        run("streamlib", 1, 50_000, 6.0),
        run("streamlib-cached", 1, 50_000, 6.0),
        run("kafka-streams", 1, 100_000, 12.0),
        run("kafka-streams-cached", 1, 25_000, 4.0),
        run("quixstreams", 1, 5_000, 60.0),
    )
    rows = {
        cells[1]: cells[2:]
        for cells in ([c.strip() for c in line.split("│")] for line in text.splitlines())
        if len(cells) > 2
    }
    assert rows["streamlib"][:4] == ["50,000", "0.50", "6.0", "0.50"]
    assert rows["streamlib-cached"][:4] == ["50,000", "2.00", "6.0", "1.50"]
    assert "0.5x kafka-streams, 2.0x kafka-streams-cached, 10.0x quixstreams" in text
