"""Metrics for OpenTelemetry: observable instruments that are read off a snapshot when a reader collects.

A metric is called `streamlib.<group>.<name>`, labels are attributes. Where they go is the meter provider's matter.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from streamlib.errors import ExtraMissingError
from streamlib.metrics import GROUPS, Group, Metric, Sample, catalogue
from streamlib.monitoring.observed import Observed

try:
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter_provider
except ImportError as error:
    raise ExtraMissingError(__name__, "opentelemetry") from error

FRESH_S = 0.5
"""A reader asks instrument by instrument: those within this time are answered from one snapshot."""


class OpenTelemetryMetrics:
    """Shows an application's metrics to the readers of a meter provider until it is closed.

        async with KafkaStreams(topology, config) as app:
            with OpenTelemetryMetrics(app):
                ...

    Args:
        app: the application.
        meter_provider: whose readers ask; the global one if not given.
    """

    def __init__(self, app: Observed, meter_provider: MeterProvider | None = None) -> None:
        self._app: Observed | None = app
        self._lock = threading.Lock()
        self._taken_s = 0.0
        self._samples: dict[str, list[Sample]] = {}
        meter = (meter_provider or get_meter_provider()).get_meter("streamlib")
        for group in GROUPS:
            for name, metric in catalogue(group).items():
                create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
                create(
                    instrument_name(group, name),
                    callbacks=[self._reader(f"{GROUPS[group][0]}_{name}")],
                    unit=_unit(metric),
                    description=metric.text,
                )

    def close(self) -> None:
        """Show nothing any more. Instruments cannot be taken back, they only have nothing to say from now on."""
        with self._lock:
            self._app, self._samples = None, {}

    def __enter__(self) -> OpenTelemetryMetrics:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _reader(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def read(options: CallbackOptions) -> Iterable[Observation]:
            return [Observation(sample.value, dict(sample.labels)) for sample in self._fresh().get(name, ())]

        return read

    def _fresh(self) -> dict[str, list[Sample]]:
        with self._lock:
            if self._app is not None and time.monotonic() - self._taken_s > FRESH_S:
                self._samples = {}
                for sample in self._app.metrics().samples():
                    self._samples.setdefault(sample.name, []).append(sample)
                self._taken_s = time.monotonic()
            return self._samples


def instrument_name(group: type[Group], name: str) -> str:
    """How OpenTelemetry calls a metric.

    >>> from streamlib.metrics import WorkerMetrics
    >>> instrument_name(WorkerMetrics, "commit_total")
    'streamlib.worker.commit_total'
    """
    return f"streamlib.{GROUPS[group][0]}.{name}"


def _unit(metric: Metric) -> str:
    """In UCUM, where what is counted is an annotation."""
    known = {"": "1", "ms": "ms", "s": "s", "bytes": "By"}
    if metric.unit in known:
        return known[metric.unit]
    what, _, per = metric.unit.partition("/")
    return f"{{{what}}}/{per}" if per else f"{{{what}}}"
