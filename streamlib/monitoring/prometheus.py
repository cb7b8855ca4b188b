"""Metrics for Prometheus: a collector that makes them of a snapshot whenever somebody scrapes.

A metric is called `streamlib_<group>_<name>`, counters end with `_total`. Nothing is registered anywhere by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from streamlib.errors import ExtraMissingError
from streamlib.metrics import GROUPS, Group, Metric, Sample, catalogue
from streamlib.monitoring.observed import Observed

try:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.metrics_core import Metric as Family
    from prometheus_client.registry import Collector
except ImportError as error:
    raise ExtraMissingError(__name__, "prometheus") from error


class PrometheusCollector(Collector):
    """The metrics of one application, for a registry of `prometheus_client`.

    >>> from prometheus_client import CollectorRegistry, generate_latest
    >>> from streamlib import KafkaStreams, StreamsBuilder, StreamsConfig
    >>> builder = StreamsBuilder()
    >>> builder.stream("in").to("out")
    >>> registry = CollectorRegistry()
    >>> registry.register(PrometheusCollector(KafkaStreams(builder.build(), StreamsConfig(application_id="copy"))))
    >>> print(generate_latest(registry).decode().splitlines()[-1])
    streamlib_client_ready{application_id="copy",worker=""} 0.0
    """

    def __init__(self, app: Observed) -> None:
        self._app = app

    def collect(self) -> Iterator[Family]:
        """As of now; a metric comes once, with all its labels."""
        families: dict[str, Family] = {}
        for sample in self._app.metrics().samples():
            family = families.get(sample.name)
            if family is None:
                family = families[sample.name] = _family(sample)
            family.add_sample(exported_name(sample.name, sample.metric), dict(sample.labels), sample.value)
        yield from families.values()

    def describe(self) -> list[Family]:
        """Nothing: to be registered must not take a snapshot."""
        return []


class Exposition:
    """The metrics of one application as text, for whoever serves `/metrics`."""

    def __init__(self, app: Observed) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(PrometheusCollector(app))

    def encode(self, accept: str) -> tuple[bytes, str]:
        """The metrics, and their content type, in the format that an Accept header asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


def exported_name(name: str, metric: Metric) -> str:
    """How Prometheus calls a sample: a counter ends with `_total`, and nothing else may."""
    name = f"streamlib_{name.removesuffix('_total')}"
    return f"{name}_total" if metric.kind == "counter" else name


def exported_names() -> Mapping[str, Metric]:
    """All there are, by the names Prometheus knows.

    >>> exported_names()["streamlib_worker_commit_total"].text
    'Commits that succeeded'
    """
    return {name: metric for group in GROUPS for name, metric in _names_of(group)}


def _names_of(group: type[Group]) -> Iterator[tuple[str, Metric]]:
    for name, metric in catalogue(group).items():
        yield exported_name(f"{GROUPS[group][0]}_{name}", metric), metric


def _family(sample: Sample) -> Family:
    metric = sample.metric
    text = f"{metric.text} ({metric.unit})" if metric.unit else metric.text
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(exported_name(sample.name, metric), text)
