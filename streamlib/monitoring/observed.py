"""What is shown: an application, or whatever says the same of itself."""

from __future__ import annotations

from typing import Protocol

from streamlib.metrics import Health, Metrics


class Observed(Protocol):
    """`KafkaStreams`, for those who only look at it. Both may be called by any thread."""

    def metrics(self) -> Metrics: ...
    def health(self) -> Health: ...
