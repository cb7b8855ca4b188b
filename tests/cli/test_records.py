"""`streamlib produce` and `streamlib consume`: lines of JSON in and out, on a real broker."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from streamlib.cli.errors import UsageError
from streamlib.cli.records.lines import Form, Line, line_of
from streamlib.cli.records.produce import moved
from streamlib.partitioning import partition_for
from streamlib.records import OutRecord, TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.cli.conftest import Command
from tests.cli.dead_letters import NOON_MS, Failed, Topics, topics

DAY_MS = 86_400_000


def record(line: str, key: Form = Form.ANY, value: Form = Form.ANY) -> OutRecord:
    return Line.read(line.encode()).record(key, value, now_ms=NOON_MS)


def test_text_is_written_as_it_is_and_everything_else_as_json() -> None:
    assert record('{"key": "ann", "value": {"a": 1}}') == (b"ann", b'{"a":1}', NOON_MS, ())
    assert record('{"value": 5}') == (None, b"5", NOON_MS, ())
    assert record('{"key": "a"}') == (b"a", None, NOON_MS, ())
    assert record('{"key": 1, "value": 0.5}', Form.INT, Form.FLOAT)[:2] == (bytes(7) + b"\x01", b"\x3f\xe0" + bytes(6))


def test_times_are_iso_8601_or_milliseconds() -> None:
    assert record('{"timestamp": "2020-01-01T13:00:00.250+01:00"}')[2] == NOON_MS + 250
    assert record('{"timestamp": 7}')[2] == 7


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("ann", "JSON is malformed"),
        ("3", "Expected `object`"),
        ('{"kee": "ann"}', "unknown field `kee`"),
        ('{"timestamp": "2020-01-01T12:00:00"}', "timezone"),
        ('{"key_hex": "xyz"}', "non-hexadecimal"),
    ],
)
def test_what_is_no_record_is_said(line: str, problem: str) -> None:
    with pytest.raises((ValueError, TypeError), match=problem):
        record(line)


def test_value_that_is_not_of_its_type_is_said() -> None:
    with pytest.raises(TypeError, match="long"):
        record('{"value": "five"}', value=Form.INT)


def test_times_move_by_whole_days_to_yesterday() -> None:
    records: list[OutRecord] = [(None, b"a", NOON_MS - DAY_MS, ()), (None, b"b", NOON_MS, ())]
    now_ms = NOON_MS + 5 * DAY_MS - 1
    assert [each[2] for each in moved(records, now_ms)] == [NOON_MS + 3 * DAY_MS, NOON_MS + 4 * DAY_MS]
    assert list(moved([], now_ms)) == []


@pytest.fixture
async def made(kafka_broker: KafkaTarget, unique_name: Callable[[str], str]) -> AsyncIterator[Topics]:
    async with topics(kafka_broker.bootstrap_servers, unique_name("records")) as made:
        yield made


async def command(streamlib: Command, made: Topics, *words: str, code: int = 0) -> str:
    servers = "--bootstrap-servers", made.servers
    done = await anyio.to_thread.run_sync(lambda: streamlib(*words, *servers))
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


async def test_what_was_printed_can_be_written_again(streamlib: Command, made: Topics, tmp_path: Path) -> None:
    headers = (("trace", b"7f"), ("raw", b"\xff"), ("none", None))
    written: list[OutRecord] = [
        (b"ann", b'{"amount":3}', NOON_MS, headers),
        (b"ann", b'{"amount": ', NOON_MS + 1, ()),
        (None, b"\xff\x00", NOON_MS + 2, ()),
        (b"bob", None, NOON_MS + 3, ()),
    ]
    await made.write({TopicPartition(made.dead, 0): written})
    lines = await command(streamlib, made, "consume", made.dead)
    assert msgspec.json.decode(lines.splitlines()[0]) == {
        "key": "ann",
        "value": {"amount": 3},
        "timestamp": "2020-01-01T12:00:00.000Z",
        "headers": [
            {"name": "trace", "value": "7f"},
            {"name": "raw", "value_hex": "ff"},
            {"name": "none", "value": None},
        ],
    }
    (tmp_path / "lines").write_text(lines)
    told = await command(streamlib, made, "produce", made.source, str(tmp_path / "lines"))
    assert told == f"records written to {made.source}: 4\n"
    found = await made.replayed()
    again = {(r.key, r.value, r.timestamp, tuple(r.headers)) for records in found.values() for r in records}
    assert again == {(key, value, timestamp, tuple(headers)) for key, value, timestamp, headers in written}
    ann = found[TopicPartition(made.source, partition_for(b"ann", 3))]
    assert [r.timestamp for r in ann if r.key == b"ann"] == [NOON_MS, NOON_MS + 1]


async def test_dead_letters_as_json_are_records_to_write(streamlib: Command, made: Topics, tmp_path: Path) -> None:
    await made.fail(Failed(b"ann", b"12,50", ValueError("no number"), headers=(("trace", b"7f"),)))
    shown = await command(streamlib, made, "dlq", "show", made.dead, "--json")
    (tmp_path / "mended").write_text(shown.replace("12,50", "12.50"))
    await command(streamlib, made, "produce", made.source, str(tmp_path / "mended"))
    ((put_back,),) = (await made.replayed()).values()
    assert (put_back.key, put_back.value, put_back.timestamp) == (b"ann", b"12.50", NOON_MS)
    assert tuple(put_back.headers) == (("trace", b"7f"),)


async def test_wrong_line_means_that_nothing_is_written(streamlib: Command, made: Topics, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text('{"value": "fine"}\n\n{"value": \n')
    error = await command(streamlib, made, "produce", made.source, str(tmp_path / "lines"), code=2)
    assert error.startswith(f"error: line 3 of {tmp_path / 'lines'}: ")
    assert error.endswith("; nothing was written\n")
    assert await made.replayed() == {}
    missing = await command(streamlib, made, "consume", f"{made.source}x", code=2)
    assert missing == f"error: there is no topic {made.source}x: did you mean {made.source}?\n"


async def test_count_waits_and_ends(streamlib: Command, made: Topics) -> None:
    words = sys.executable, "-m", "streamlib", "consume", made.source, "--count", "2", "--value", "int"
    servers = "--bootstrap-servers", made.servers
    with subprocess.Popen([*words, *servers], stdout=subprocess.PIPE, text=True) as waiting:
        for number in (1, 2):
            await made.write({TopicPartition(made.source, number): [(b"k", bytes(7) + b"\x05", NOON_MS, ())]})
        printed, _ = await anyio.to_thread.run_sync(lambda: waiting.communicate(timeout=60))
    assert waiting.returncode == 0
    assert [msgspec.json.decode(line)["value"] for line in printed.splitlines()] == [5, 5]
    short = await command(streamlib, made, "consume", made.source, "--count", "3", "--timeout", "1", code=1)
    assert short == f"error: {made.source} had 2 committed records within 1 s, not 3\n"


async def test_plain_lines_are_values_spread_over_partitions(streamlib: Command, made: Topics, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("to be\nor not\nto be\n")
    await command(streamlib, made, "produce", made.source, str(tmp_path / "lines"), "--plain")
    found = await made.replayed()
    assert {(partition.partition, r.key, r.value) for partition, rs in found.items() for r in rs} == {
        (0, None, b"to be"),
        (1, None, b"or not"),
        (2, None, b"to be"),
    }


def test_value_of_another_type_is_said_with_what_to_do() -> None:
    with pytest.raises(UsageError, match=r"a value is not of type int: .*: leave --value out"):
        line_of((None, b"abc", 0, ()), Form.ANY, Form.INT)
