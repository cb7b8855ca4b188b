"""`streamlib produce` and `streamlib consume`, on a real broker."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from streamlib import KafkaStreams, StreamsBuilder, StreamsConfig, TimeWindows
from streamlib.cli.client import connected, read_committed
from streamlib.cli.records.forms import Form, as_json, encode, encode_value, show
from streamlib.kafka.reading import partitions_of
from streamlib.partitioning import partition_for
from streamlib.records import OutRecord, TopicPartition
from streamlib.testing.plugin import KafkaTarget

WINDOW_MS = 60_000
DAY_MS = 24 * 60 * WINDOW_MS


def command(*arguments: str, servers: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamlib", *arguments, "--bootstrap-servers", servers],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def make_topic(servers: str, name: str, partitions: int = 2) -> str:
    async with connected(servers, name) as connection:
        await connection.admin().create_topic(name, partitions, {"retention.ms": "-1"})
    return name


def test_lines_go_where_their_keys_belong_and_come_back(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str]
) -> None:
    servers = kafka_broker.bootstrap_servers
    topic = anyio.run(make_topic, servers, unique_name("orders"))
    done = command("produce", topic, "--separator", ":", "--value", "int", servers=servers, stdin="ann:3\nbob:-1\n")
    assert (done.returncode, done.stderr) == (0, f"written to {topic}: 2 records\n")
    shown = command("consume", topic, "--value", "int", "--from-beginning", "--to-end", servers=servers)
    assert sorted(shown.stdout.splitlines()) == ["ann\t3", "bob\t-1"]
    as_objects = command(
        "consume", topic, "--value", "int", "--from-beginning", "--max", "2", "--json", servers=servers
    )
    objects = [msgspec.json.decode(line) for line in as_objects.stdout.splitlines()]
    assert {each["key"]: each["partition"] for each in objects} == {
        key: partition_for(key.encode(), 2) for key in ("ann", "bob")
    }
    copy = anyio.run(make_topic, servers, unique_name("copy"))
    command("produce", copy, "--json", "--value", "int", servers=servers, stdin=as_objects.stdout)
    copied = command("consume", copy, "--value", "int", "--from-beginning", "--to-end", "--json", servers=servers)
    assert [{**msgspec.json.decode(line), "topic": topic} for line in copied.stdout.splitlines()] == objects


def test_wrong_lines_topics_and_forms_are_told(kafka_broker: KafkaTarget, unique_name: Callable[[str], str]) -> None:
    servers = kafka_broker.bootstrap_servers
    topic = anyio.run(make_topic, servers, unique_name("wrong"))
    done = command("produce", topic, "--separator", ":", servers=servers, stdin="ann:3\nbob\n")
    assert (done.returncode, done.stderr) == (
        2,
        "error: line 2 is no record: ':' is not in it; the lines before it are written\n",
    )
    assert command("consume", topic, "--from-beginning", "--to-end", servers=servers).stdout == "ann\t3\n"
    done = command("consume", topic, "--value", "int", "--from-beginning", "--to-end", servers=servers)
    assert done.returncode == 2
    assert "an int has 8 bytes, not 1" in done.stderr
    done = command("produce", topic.replace("wrong", "wrnog"), servers=servers, stdin="x\n")
    assert done.returncode == 2
    assert f"did you mean {topic}?" in done.stderr


def test_times_may_be_iso_8601_and_move_by_days_to_yesterday(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str]
) -> None:
    servers = kafka_broker.bootstrap_servers
    topic = anyio.run(make_topic, servers, unique_name("recent"), 1)
    lines = '{"key": "a", "timestamp": "2020-01-01T13:00:00.250+01:00"}\n{"key": "b", "timestamp": 1577880060000}\n'
    command("produce", topic, "--json", servers=servers, stdin=lines)
    done = command("produce", topic, "--json", "--recent", servers=servers, stdin=lines)
    yesterday_ms = (time.time_ns() // 1_000_000 // DAY_MS - 1) * DAY_MS
    assert done.returncode == 0, done.stderr
    shown = command("consume", topic, "--from-beginning", "--to-end", "--json", servers=servers)
    times = [msgspec.json.decode(line)["timestamp"] for line in shown.stdout.splitlines()]
    noon_ms = DAY_MS // 2
    assert times == [1577880000250, 1577880060000, yesterday_ms + noon_ms + 250, yesterday_ms + noon_ms + 60_000]
    done = command("produce", topic, "--json", servers=servers, stdin='{"timestamp": "2020-01-01T12:00:00"}')
    assert "line 1 is no record" in done.stderr  # of which time zone?
    assert "--recent needs --json" in command("produce", topic, "--recent", servers=servers).stderr


async def test_aborted_records_are_shown_only_to_those_who_ask(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str]
) -> None:
    servers, name = kafka_broker.bootstrap_servers, unique_name("aborted")
    topic = await make_topic(servers, name, 1)
    async with connected(servers, name) as connection:
        producer = connection.producer(f"{name}-id")
        await producer.init()
        for value, commit in ((b"kept", True), (b"aborted", False)):
            producer.begin()
            record: OutRecord = (b"k", value, 0, ())
            producer.send(TopicPartition(topic, 0), [record])
            await producer.flush()
            await producer.end(commit=commit)
        await producer.close()
        there = [each async for each in read_committed(connection, partitions_of(topic, 1))]
    assert len(there) == 1
    options = ("consume", topic, "--from-beginning", "--to-end")

    def run(*more: str) -> str:
        return command(*options, *more, servers=servers).stdout

    assert await anyio.to_thread.run_sync(run) == "k\tkept\n"
    assert await anyio.to_thread.run_sync(run, "--isolation", "read_uncommitted") == "k\tkept\nk\taborted\n"


async def test_keys_of_windows_are_readable(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str], tmp_path: Path
) -> None:
    servers, name = kafka_broker.bootstrap_servers, unique_name("windows")
    source, out = await make_topic(servers, f"{name}-in", 1), await make_topic(servers, f"{name}-out", 1)
    lines = "".join(f'{{"key": "ann", "value": "x", "timestamp": {at}}}\n' for at in (WINDOW_MS, WINDOW_MS + 1))
    await anyio.to_thread.run_sync(lambda: command("produce", source, "--json", servers=servers, stdin=lines))
    builder = StreamsBuilder()
    minute = TimeWindows.of_size(timedelta(milliseconds=WINDOW_MS), grace=timedelta(0))
    builder.stream(source, key=str, value=str).group_by_key().windowed_by(minute).count().to_stream().to(out)
    config = StreamsConfig(application_id=name, bootstrap_servers=servers, state_dir=str(tmp_path))
    async with KafkaStreams(builder.build(), config):
        shown = await anyio.to_thread.run_sync(
            lambda: command(
                *("consume", out, "--from-beginning", "--max", "2", "--key", "windowed", "--value", "int"),
                servers=servers,
            )
        )
    assert shown.stdout == "ann@1970-01-01 00:01:00.000Z\t1\nann@1970-01-01 00:01:00.000Z\t2\n"


def test_ctrl_c_ends_both_and_what_was_read_is_written(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str]
) -> None:
    servers = kafka_broker.bootstrap_servers
    topic = anyio.run(make_topic, servers, unique_name("interrupted"))
    words = [sys.executable, "-m", "streamlib"]
    at = ["--bootstrap-servers", servers]
    with (
        subprocess.Popen([*words, "consume", topic, *at, "--from-beginning"], stdout=subprocess.PIPE) as consumer,
        subprocess.Popen([*words, "produce", topic, *at], stdin=subprocess.PIPE) as producer,
    ):
        assert consumer.stdout is not None
        assert producer.stdin is not None
        producer.stdin.write(b"to be\n")
        producer.stdin.flush()  # and not closed: somebody is typing
        assert consumer.stdout.readline() == b"null\tto be\n"
        for process in (producer, consumer):
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130


def test_a_reader_that_has_seen_enough_ends_it_quietly(
    kafka_broker: KafkaTarget, unique_name: Callable[[str], str]
) -> None:
    servers = kafka_broker.bootstrap_servers
    topic = anyio.run(make_topic, servers, unique_name("pipe"))
    command("produce", topic, servers=servers, stdin="a line\n" * 20_000)
    shell = f"{sys.executable} -m streamlib consume {topic} --bootstrap-servers {servers} --from-beginning | head -n 1"
    done = subprocess.run(shell, shell=True, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("null\ta line\n", "")


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [(Form.STR, "ann", "ann"), (Form.INT, "-5", -5), (Form.FLOAT, "1.5", 1.5), (Form.JSON, '{"a":[1]}', {"a": [1]})],
)
def test_text_bytes_and_json_are_the_same_value(form: Form, text: str, value: object) -> None:
    data = encode(form, text)
    assert encode_value(form, value) == data
    assert show(form, data) == text
    assert as_json("value", form, data) == {"value": value}


@pytest.mark.parametrize(("form", "text"), [(Form.INT, "1.5"), (Form.INT, "9" * 30), (Form.JSON, "{"), (Form.HEX, "x")])
def test_what_is_not_of_the_form_is_refused(form: Form, text: str) -> None:
    with pytest.raises((ValueError, msgspec.DecodeError)):
        encode(form, text)


def test_times_of_sessions_are_shown() -> None:
    end, start = (each.to_bytes(8, "big") for each in (2_000, 1_000))
    assert show("session", b"ann" + end + start) == "ann@1970-01-01 00:00:01.000Z..1970-01-01 00:00:02.000Z"
    assert as_json("key", "session", b"ann" + end + start) == {"key": "ann", "start": 1_000, "end": 2_000}
