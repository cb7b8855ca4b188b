"""An application that says what it is told to say."""

from __future__ import annotations

from streamlib.metrics import (
    ClientMetrics,
    Health,
    HealthStatus,
    Metrics,
    PartitionMetrics,
    StoreMetrics,
)


class Told:
    """Implements `Observed`."""

    def __init__(self) -> None:
        self.said = Health(HealthStatus.OK, True)
        self.asked = 0
        self.lags = {"0": 3, "1": 0}

    def health(self) -> Health:
        return self.said

    def metrics(self) -> Metrics:
        self.asked += 1
        return Metrics(
            application_id="shop",
            worker_id="w1",
            client=ClientMetrics(
                state="RUNNING", version="1", alive_stream_threads=1, failed_stream_threads=0, health=0, ready=1
            ),
            partitions={
                (f"0_{number}", "orders", number): PartitionMetrics(
                    records_lag=lag, standing_time=0.0, unstable_records=0
                )
                for number, lag in self.lags.items()
            },
            stores={
                ("0_0", "counts"): StoreMetrics(
                    get_total=5,
                    get_rate=1.0,
                    get_latency_avg=None,
                    get_latency_max=None,
                    range_total=0,
                    range_rate=0.0,
                    put_total=2,
                    put_rate=0.0,
                    flush_total=1,
                    flush_latency_avg=0.5,
                    flush_latency_max=0.5,
                )
            },
        )
