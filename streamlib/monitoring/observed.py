"""What is shown: an application, or whatever says the same of itself."""

from __future__ import annotations

from typing import Protocol

import msgspec

from streamlib.metrics import Health, Metrics


class Observed(Protocol):
    """`KafkaStreams`, for those who only look at it. Both may be called by any thread."""

    def metrics(self) -> Metrics: ...
    def health(self) -> Health: ...


def as_json(health: Health) -> bytes:
    """What those are told who ask for health.

    >>> from streamlib.metrics import HealthStatus
    >>> as_json(Health(HealthStatus.OK, True))
    b'{"status":"ok","ready":true,"reasons":[]}\\n'
    """
    told = {"status": health.status.name.lower(), "ready": health.ready, "reasons": health.reasons}
    return msgspec.json.encode(told) + b"\n"
