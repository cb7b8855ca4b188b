"""What the console is told of restores and keys."""

from __future__ import annotations

from typing import cast

import pytest

from streamlib import StreamsConfig
from streamlib.engine.task import Task
from streamlib.records import TaskId, TopicPartition
from streamlib.runtime.album import Album, coming
from streamlib.runtime.restoration import Progress, Restoration
from streamlib.runtime.sampling import Sampling
from streamlib.serdes import Serde, serde_for

TOPIC = "orders"


class Named:
    """As much of a task as a restore's progress asks for."""

    id = TaskId(1, 3)


def restoring(*, endless: bool = False) -> Restoration:
    changelogs = {
        TopicPartition("a-changelog", 3): Progress("a", start=100, position=400, end=1_000, restored=250),
        TopicPartition("b-changelog", 3): Progress("b", start=0, position=50, end=50, restored=50),
    }
    return Restoration(cast(Task, Named()), changelogs, endless, started_ms=1_000.0, moved_ms=3_000.0)


def test_a_restore_tells_how_far_it_is_and_how_long_it_takes() -> None:
    seen = coming(restoring())
    assert (seen.task, seen.standby, seen.restored, seen.remaining) == ("1_3", False, 300, 600)
    assert [(store.store, store.done, store.remaining) for store in seen.stores] == [("a", 300, 600), ("b", 50, 0)]
    assert seen.rate == 150.0  # records in two seconds
    assert seen.eta_s == pytest.approx(600 * 2 / 350)  # offsets at the pace of offsets


def test_a_standby_has_no_end() -> None:
    assert coming(restoring(endless=True)).eta_s is None


class Broken:
    """A serde whose decoding fails."""

    def decode(self, raw: bytes) -> str:
        raise RuntimeError("out of order")


@pytest.mark.parametrize(
    ("serde", "raw", "text"),
    [
        (serde_for(str), b"ann", "ann"),
        (serde_for(int), (7).to_bytes(8, "big"), "7"),
        (serde_for(str), b"x" * 500, "'" + "x" * 76 + "..."),
        (None, b"ann", "b'ann'"),
        (Broken(), b"ann", "b'ann'"),
    ],
)
def test_keys_are_shown_as_their_sources_read_them(serde: Serde[object] | None, raw: bytes, text: str) -> None:
    sampling = Sampling()
    sampling.processed((TopicPartition(TOPIC, 0), 5, raw), 10)
    album = Album(StreamsConfig(application_id="shop"), {} if serde is None else {TOPIC: serde}, sampling)
    assert [key.key for key in album.hot_keys()] == [text]
