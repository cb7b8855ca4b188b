"""A wrong output is found, and a right one is not held to be wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
import pytest

from benchmarks.compare.data import Data, city
from benchmarks.compare.jobs import JOBS, Enriched, WindowCount, WrongOutputError
from benchmarks.keyed_count import Event

DATA = Data.of(records=1200, keys=24, partitions=4)
OVER_TWO_WINDOWS = Data(records=1200, keys=24, partitions=4, begins_ms=60_000 - 150)

Output = list[tuple[str, bytes]]


def right_output(job: str, data: Data) -> Output:
    """What a job leads to without a cache."""
    counts: Counter[tuple[str, int]] = Counter()
    output = []
    for number in range(data.records):
        user, start = data.user(number), data.window(number)
        row = (user, start if job == "window-count" else 0)
        counts[row] += 1
        event = msgspec.json.decode(data.event(number), type=Event)
        values = {
            "passthrough": data.event(number),
            "keyed-count": counts[row].to_bytes(8, "big"),
            "window-count": msgspec.json.encode(WindowCount(start, counts[row])),
            "table-join": msgspec.json.encode(Enriched(number, event.amount, city(user))),
        }
        output.append((user, values[job]))
    return output


def check(job: str, data: Data, output: Iterable[tuple[str, bytes]], *, cached: bool = False) -> int:
    """How many records are repeated, if nothing is wrong."""
    oracle = JOBS[job].oracle(data, cached)
    for key, value in output:
        oracle.take(key.encode(), value)
    oracle.finish()
    return oracle.repeated


@pytest.mark.parametrize("job", JOBS)
def test_a_right_output_passes(job: str) -> None:
    assert check(job, DATA, right_output(job, DATA)) == 0


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("index", [0, 600, 1199])
def test_a_missing_record_is_found(job: str, index: int) -> None:
    output = right_output(job, DATA)
    del output[index]
    with pytest.raises(WrongOutputError):
        check(job, DATA, output)


@pytest.mark.parametrize("job", JOBS)
def test_two_records_of_a_key_in_the_wrong_order_are_found(job: str) -> None:
    output = right_output(job, DATA)
    assert output[0][0] == output[DATA.keys][0]
    output[0], output[DATA.keys] = output[DATA.keys], output[0]
    with pytest.raises(WrongOutputError):
        check(job, DATA, output)


@pytest.mark.parametrize("job", JOBS)
def test_a_repeated_record_is_counted(job: str) -> None:
    output = right_output(job, DATA)
    assert check(job, DATA, [*output, output[0], output[-1]]) == 2


@pytest.mark.parametrize("job", JOBS)
def test_a_result_under_the_key_of_another_is_found(job: str) -> None:
    output = right_output(job, DATA)
    output[0] = (output[1][0], output[0][1])
    with pytest.raises(WrongOutputError):
        check(job, DATA, output)


@pytest.mark.parametrize("job", JOBS)
def test_a_key_that_was_never_there_is_found(job: str) -> None:
    output = right_output(job, DATA)
    with pytest.raises(WrongOutputError):
        check(job, DATA, [*output, ("user-999", output[0][1])])


@pytest.mark.parametrize(
    ("job", "wrong"),
    [
        ("passthrough", DATA.event(0).replace(b"buy", b"bye")),
        ("keyed-count", (51).to_bytes(8, "big")),  # there are 50
        ("window-count", msgspec.json.encode(WindowCount(DATA.window(0) + 60_000, 1))),
        ("table-join", msgspec.json.encode(Enriched(0, 0.0, "elsewhere"))),
    ],
)
def test_a_wrong_value_is_found(job: str, wrong: bytes) -> None:
    output = right_output(job, DATA)
    output[0] = (output[0][0], wrong)
    with pytest.raises(WrongOutputError):
        check(job, DATA, output)


def test_a_cache_may_leave_counts_out() -> None:
    output = right_output("keyed-count", DATA)
    last = output[-DATA.keys :]
    assert check("keyed-count", DATA, [*output[: DATA.keys], *last], cached=True) == 0
    with pytest.raises(WrongOutputError):
        check("keyed-count", DATA, [*output[: DATA.keys], *last])


def test_a_cache_may_not_leave_the_last_count_out() -> None:
    with pytest.raises(WrongOutputError):
        check("keyed-count", DATA, right_output("keyed-count", DATA)[:-1], cached=True)


def test_windows_are_counted_apart() -> None:
    output = right_output("window-count", OVER_TWO_WINDOWS)
    windows = {msgspec.json.decode(value, type=WindowCount).start for _, value in output}
    assert len(windows) == 2
    assert check("window-count", OVER_TWO_WINDOWS, output) == 0


def test_a_key_comes_again_after_all_others_and_stays_in_its_partition() -> None:
    users = [DATA.user(number) for number in range(DATA.records)]
    assert len(set(users[: DATA.keys])) == DATA.keys
    assert users[DATA.keys : 2 * DATA.keys] == users[: DATA.keys]
    partitions = {(user, number % DATA.partitions) for number, user in enumerate(users)}
    assert len(partitions) == DATA.keys


def test_records_have_the_size_that_was_asked_for() -> None:
    for size in (100, 1000, 100_000):
        data = Data.of(records=100_000, keys=10_000, partitions=4, size_bytes=size)
        assert {len(data.event(number)) for number in (0, 1, 99_999)} == {size}
