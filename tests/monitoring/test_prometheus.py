"""What Prometheus reads, parsed by its own parser."""

from __future__ import annotations

import re

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from streamlib.monitoring.prometheus import PrometheusCollector, exported_names
from tests.monitoring.sample import Told


def scraped(app: Told) -> dict[str, dict[tuple[str, ...], float]]:
    """Name -> the labels beside those that all have, by their names in order -> value."""
    registry = CollectorRegistry()
    registry.register(PrometheusCollector(app))
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = {name: value for name, value in sample.labels.items() if name not in ("application_id", "worker")}
            found.setdefault(sample.name, {})[tuple(labels[name] for name in sorted(labels))] = sample.value
            assert sample.labels["application_id"] == "shop"
            assert sample.labels["worker"] == "w1"
    return found


def test_each_number_has_its_labels() -> None:
    found = scraped(Told())
    assert found["streamlib_partition_records_lag"] == {("0", "0_0", "orders"): 3, ("1", "0_1", "orders"): 0}
    assert found["streamlib_store_get_total"] == {("counts", "0_0"): 5}
    assert found["streamlib_client_state"] == {("RUNNING",): 1}


def test_what_is_not_known_is_left_out() -> None:
    assert "streamlib_store_get_latency_avg" not in scraped(Told())


def test_a_scrape_takes_one_snapshot_and_registering_none() -> None:
    app = Told()
    scraped(app)
    assert app.asked == 1
    app.lags["0"] = 9
    assert scraped(app)["streamlib_partition_records_lag"]["0", "0_0", "orders"] == 9


def test_names_are_as_prometheus_wants_them_and_counters_end_with_total() -> None:
    for name, metric in exported_names().items():
        assert re.fullmatch(r"streamlib_[a-z0-9_]+", name)
        assert name.endswith("_total") == (metric.kind == "counter"), name
