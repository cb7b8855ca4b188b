"""What the readers of a meter provider get."""

from __future__ import annotations

from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from streamlib.metrics import GROUPS, catalogue
from streamlib.monitoring.opentelemetry import OpenTelemetryMetrics
from tests.monitoring.sample import Told


def collected(reader: InMemoryMetricReader) -> dict[str, Any]:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics]
    return {metric.name: metric for scope in scopes if scope.scope.name == "streamlib" for metric in scope.metrics}


def test_readers_get_what_there_is_from_one_snapshot() -> None:
    app, reader = Told(), InMemoryMetricReader()
    with OpenTelemetryMetrics(app, MeterProvider([reader], shutdown_on_exit=False)):
        found = collected(reader)
    lag = {
        point.attributes["partition"]: point.value
        for point in found["streamlib.partition.records_lag"].data.data_points
    }
    assert lag == {"0": 3, "1": 0}
    assert app.asked == 1
    gets = found["streamlib.store.get_total"]
    assert gets.data.is_monotonic
    assert (gets.unit, gets.data.data_points[0].value) == ("{reads}", 5)
    assert "streamlib.store.get_latency_avg" not in found
    assert found["streamlib.store.flush_latency_avg"].unit == "ms"


def test_a_closed_one_has_nothing_to_say() -> None:
    reader = InMemoryMetricReader()
    with OpenTelemetryMetrics(Told(), MeterProvider([reader], shutdown_on_exit=False)):
        assert collected(reader)
    assert collected(reader) == {}


def test_every_metric_has_an_instrument() -> None:
    class Meter:
        def __init__(self) -> None:
            self.names: list[str] = []

        def create_observable_counter(self, name: str, **_: object) -> None:
            self.names.append(name)

        create_observable_gauge = create_observable_counter

    class Provider:
        meter = Meter()

        def get_meter(self, name: str) -> Meter:
            return self.meter

    provider = Provider()
    OpenTelemetryMetrics(Told(), provider)  # type: ignore[arg-type]
    assert len(set(provider.meter.names)) == len(provider.meter.names) == sum(map(len, map(catalogue, GROUPS)))
