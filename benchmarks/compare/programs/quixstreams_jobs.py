"""The jobs on quixstreams. Runs in an environment of its own, without streamlib."""

from __future__ import annotations

import os
from typing import Any

from quixstreams import Application, State

WINDOW_MS = 60_000
TEN_YEARS_MS = 10 * 365 * 86_400_000


def count(event: dict[str, Any], state: State) -> int:
    total = state.get("count", 0) + 1
    state.set("count", total)
    return total


def window_count(window: dict[str, Any]) -> dict[str, Any]:
    return {"start": window["start"], "count": window["value"]}


def enriched(event: dict[str, Any], profile: dict[str, Any]) -> dict[str, Any]:
    return {"number": event["number"], "amount": event["amount"], "city": profile["city"]}


def main() -> None:
    guarantee = os.environ["BENCHMARK_GUARANTEE"]
    app = Application(
        broker_address=os.environ["BENCHMARK_BOOTSTRAP_SERVERS"],
        consumer_group=os.environ["BENCHMARK_APPLICATION"],
        auto_offset_reset="earliest",
        commit_interval=int(os.environ["BENCHMARK_COMMIT_INTERVAL_MS"]) / 1000,
        state_dir=os.environ["BENCHMARK_STATE_DIR"],
        processing_guarantee="exactly-once" if guarantee == "exactly_once_v2" else "at-least-once",
        loglevel="WARNING",
    )
    job = os.environ["BENCHMARK_JOB"]
    events = app.dataframe(app.topic(os.environ["BENCHMARK_INPUT"], key_deserializer="str", value_deserializer="json"))
    match job:
        case "passthrough":
            results = events
        case "keyed-count":
            results = events.apply(count, stateful=True)
        case "window-count":
            results = events.tumbling_window(WINDOW_MS).count().current().apply(window_count)
        case "table-join":
            table = app.topic(os.environ["BENCHMARK_TABLE"], key_deserializer="str", value_deserializer="json")
            results = events.join_asof(app.dataframe(table), on_merge=enriched, grace_ms=TEN_YEARS_MS)
        case other:
            raise ValueError(f"no such job: {other}")
    encoding = "int" if job == "keyed-count" else "json"
    results.to_topic(app.topic(os.environ["BENCHMARK_OUTPUT"], key_serializer="str", value_serializer=encoding))
    app.run()


if __name__ == "__main__":
    main()
