"""Who hears of restores: the log, the application's listener, and everybody if one stands still."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec

from streamlib.records import TopicPartition
from streamlib.restore_listener import RestoreListener, SuspendReason
from streamlib.runtime.ports import Clock
from streamlib.runtime.restoration import Progress, Restoration

log = logging.getLogger(__name__)

P = ParamSpec("P")

LOG_INTERVAL_MS = 5_000
STALLED_MS = 30_000


class RestoreReports:
    """Tells what a restorer does. `listener` may be missing."""

    def __init__(self, clock: Clock, listener: RestoreListener | None) -> None:
        self._clock = clock
        self._listener = listener or RestoreNothing()
        self._logged_ms = clock.monotonic_ms()

    def started(self, restoration: Restoration) -> None:
        """It begins, or begins anew."""
        if restoration.remaining:
            what = "following as a standby" if restoration.endless else "restoring"
            places = ", ".join(f"{p} from {at.position} to {at.end}" for p, at in restoration.changelogs.items())
            log.info("task %s: %s %s", restoration.id, what, places)
        for partition, at in restoration.changelogs.items():
            if restoration.endless:
                _tell(self._listener.on_update_start, partition, at.store, at.position)
            else:
                _tell(self._listener.on_restore_start, partition, at.store, at.position, at.end)

    def loaded(self, restoration: Restoration, partition: TopicPartition, records: int) -> None:
        """So many records more are in a store."""
        at = restoration.changelogs[partition]
        if records and restoration.endless:
            _tell(self._listener.on_batch_loaded, partition, at.store, at.position, records, at.end)
        elif records:
            _tell(self._listener.on_batch_restored, partition, at.store, at.position, records)

    def ended(self, restoration: Restoration, partition: TopicPartition) -> None:
        """A store is complete."""
        at = restoration.changelogs[partition]
        if not restoration.endless:
            _tell(self._listener.on_restore_end, partition, at.store, at.restored)

    def caught_up(self, restoration: Restoration) -> None:
        """All stores of the task are complete, and safe."""
        if not restoration.restored:
            return
        log.info(
            "task %s: %s %d records in %.1f s (%.0f/s), from %s",
            restoration.id, "caught up as a standby after" if restoration.endless else "restored",
            restoration.restored, (self._clock.monotonic_ms() - restoration.started_ms) / 1000, restoration.rate,
            ", ".join(f"offset {at.start} of {p}" for p, at in restoration.changelogs.items()),
        )  # fmt: skip

    def stopped(self, restoration: Restoration, reason: SuspendReason) -> None:
        """It is given up before its end; standbys have none."""
        for partition, at in restoration.changelogs.items():
            if restoration.endless:
                _tell(self._listener.on_update_suspended, partition, at.store, at.position, at.end, reason)
            elif not at.ended:
                _tell(self._listener.on_restore_suspended, partition, at.store, at.restored)

    def look(self, restorations: Iterable[Restoration], readable: Mapping[TopicPartition, int]) -> None:
        """To be called every now and then; `readable` is up to where the brokers let us read."""
        now = self._clock.monotonic_ms()
        log_due = now - self._logged_ms >= LOG_INTERVAL_MS
        if log_due:
            self._logged_ms = now
        for restoration in restorations:
            if log_due and restoration.remaining and not restoration.endless:
                _log_progress(restoration)
            for partition, at in restoration.changelogs.items():
                if at.remaining and now - max(at.moved_ms, at.warned_ms) >= STALLED_MS:
                    at.warned_ms = now
                    _warn_of_standstill(restoration, partition, now, readable.get(partition))


class RestoreNothing(RestoreListener):
    """Listens to nothing."""


def _tell(method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    try:
        method(*args, **kwargs)
    except Exception:
        log.exception("the restore listener raised; the restore goes on")


def _log_progress(restoration: Restoration) -> None:
    eta_s = restoration.eta_s
    log.info(
        "task %s: restored %d records (%.0f/s), about %d to go%s",
        restoration.id, restoration.restored, restoration.rate, restoration.remaining,
        "" if eta_s is None else f", {eta_s:.0f} s",
    )  # fmt: skip


def _warn_of_standstill(
    restoration: Restoration, partition: TopicPartition, now_ms: float, readable: int | None
) -> None:
    at: Progress = restoration.changelogs[partition]
    if readable is None:
        why = "the broker has not answered yet"
    elif readable < at.end:
        why = f"the broker lets us read up to {readable}: a transaction that is still open may hold the rest back"
    else:
        why = f"the broker has records up to {readable}"
    log.warning(
        "task %s: the restore of store %s has stood still for %.0f s: it is at offset %d of %s and has to reach %d; %s",
        restoration.id, at.store, (now_ms - at.moved_ms) / 1000, at.position, partition, at.end, why,
    )  # fmt: skip
