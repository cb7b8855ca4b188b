"""Stores of every kind over HTTP: what is asked for, what is answered, and what is said of what cannot be."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from streamlib import (
    Materialized,
    Processor,
    Record,
    SessionWindows,
    Stores,
    StreamsBuilder,
    StreamsConfig,
    TimeWindows,
    Topology,
)
from streamlib.engine.plan import Plan
from streamlib.errors import StateStoreNotAvailableError, StreamsRebalancingError
from streamlib.records import TaskId
from streamlib.runtime.local_stores import LagInfo, StoreCopy
from streamlib.runtime.ports import MemberTasks
from streamlib.testing import TopologyTestDriver
from streamlib.topology.nodes import StoreSpec
from streamlib.web.stores import listing
from streamlib.web.stores.routes import StoreRoutes

Get = Callable[..., tuple[int, dict[str, Any]]]


class Place(msgspec.Struct, frozen=True):
    shop: str
    shelf: int


class Local:
    """The stores of a test driver; as `LocalStores`."""

    def __init__(self, driver: TopologyTestDriver) -> None:
        self._driver = driver
        self.refusal: Exception | None = None

    @property
    def plan(self) -> Plan:
        return self._driver._plan

    @property
    def me(self) -> MemberTasks:
        return MemberTasks("m", "worker-1", "10.0.0.1:80", self.plan.tasks)

    others: tuple[MemberTasks, ...] = ()

    def copy(self, spec: StoreSpec, task_id: TaskId, *, stale: bool) -> StoreCopy:
        if self.refusal is not None:
            raise self.refusal
        task = self._driver._tasks[task_id]
        return StoreCopy(spec, task, task.backend, lag=LagInfo(1, 3))

    def global_copy(self, spec: StoreSpec, *, stale: bool) -> StoreCopy:
        state = self._driver._global
        assert state is not None
        return StoreCopy(spec, None, state.backend)

    def lags(self) -> dict[str, dict[int, LagInfo]]:
        return {}


class App:
    """Its application."""

    config = StreamsConfig(application_id="app")

    def __init__(self, local: Local) -> None:
        self.local_stores: Any = local


class Keep(Processor[Any, Any]):
    """Puts what comes into its store."""

    def __init__(self, store: str) -> None:
        self._name = store

    def init(self, context: Any) -> None:
        self._store = context.state_store(self._name)

    def process(self, record: Record[Any, Any]) -> None:
        self._store.put(record.key, record.value)


def topology() -> Topology:
    builder = StreamsBuilder()
    words = builder.stream("words", key=str, value=str).group_by_key()
    words.count(store="counts")
    minute = TimeWindows.of_size(timedelta(minutes=1), grace=timedelta(0))
    words.windowed_by(minute).count(store=Materialized(name="minutes", retention=timedelta(hours=1)))
    words.windowed_by(SessionWindows.of_inactivity_gap(timedelta(seconds=10), grace=timedelta(0))).count(
        store=Materialized(name="visits", retention=timedelta(hours=1))
    )
    builder.table("prices", key=str, value=int, store=Materialized(name="prices", history_retention=timedelta(days=1)))
    builder.global_table("rates", key=str, value=float, store="rates")
    for name, key, value in (
        ("numbers", int, bytes), ("raw", bytes, str), ("ids", uuid.UUID, str), ("places", Place, Place),
    ):  # fmt: skip
        stream = builder.stream(name, key=key, value=value)
        builder.add_state_store(Stores.key_value_store(name, key=key, value=value))
        stream.process(partial(Keep, name), name)
    stream = builder.stream("latest", key=str, value=str)
    builder.add_state_store(Stores.lru_map("latest", key=str, value=str, max_entries=2))
    stream.process(partial(Keep, "latest"), "latest")
    builder.table("brief", key=str, value=str, store=Materialized(name="brief", ttl=timedelta(seconds=5)))
    return builder.build()


@pytest.fixture
def driver() -> Iterator[TopologyTestDriver]:
    with TopologyTestDriver(topology(), config=App.config) as driver:
        yield driver


@pytest.fixture
def local(driver: TopologyTestDriver) -> Local:
    return Local(driver)


@pytest.fixture
def get(local: Local) -> Get:
    client = TestClient(Starlette(routes=StoreRoutes(App(local)).routes()))

    def get(path: str, headers: Mapping[str, str] | None = None, **parameters: Any) -> tuple[int, dict[str, Any]]:
        response = client.get(path, params=parameters or None, headers=headers)
        assert (response.headers.get("retry-after") == "1") == (response.status_code == 503)
        body: dict[str, Any] = response.json()
        return response.status_code, body

    return get


def pipe(driver: TopologyTestDriver, topic: str, key: Any, *records: tuple[Any, Any, int], value: Any = str) -> None:
    source = driver.input_topic(topic, key=key, value=value)
    for record in records:
        source.pipe_input(record[0], record[1], timestamp_ms=record[2])


def rows(body: dict[str, Any]) -> list[Any]:
    return [(row["key"], row["value"]) for row in body["rows"]]


def test_a_key_is_answered_with_its_value_and_where_it_is_from(driver: TopologyTestDriver, get: Get) -> None:
    pipe(driver, "words", str, ("ann", "x", 1_000), ("ann", "x", 2_000))
    assert get("/stores/counts/keys/ann") == (
        200,
        {
            "store": "counts", "key": "ann", "value": 2, "timestamp": 2_000,
            "partition": 0, "worker": "worker-1", "stale": False, "lag": 2,
        },
    )  # fmt: skip


def test_no_such_key_is_another_thing_than_no_such_store(get: Get) -> None:
    status, body = get("/stores/counts/keys/nobody")
    assert (status, body["error"], body["partition"]) == (404, "key_not_found", 0)
    status, body = get("/stores/count/keys/nobody")
    assert (status, body["error"]) == (404, "unknown_store")
    assert "it has brief, counts" in body["message"]


@pytest.mark.parametrize("key", ["a/b", "ä ö", "100%", "a?b=c&d", "", "..", "//"])
def test_any_text_can_be_a_key(driver: TopologyTestDriver, get: Get, key: str) -> None:
    pipe(driver, "words", str, (key, "x", 1_000))
    path = quote(key, safe="").replace(".", "%2E")
    assert get(f"/stores/counts/keys/{path}")[1]["value"] == 1


def test_keys_of_other_types_are_json(driver: TopologyTestDriver, get: Get) -> None:
    pipe(driver, "numbers", int, (-7, b"\xff\x00", 1), value=bytes)
    assert get("/stores/numbers/keys/-7")[1] | {"lag": 0} == {
        "store": "numbers", "key": -7, "value": base64.b64encode(b"\xff\x00").decode(), "value_encoding": "base64",
        "partition": 0, "worker": "worker-1", "stale": False, "lag": 0,
    }  # fmt: skip
    pipe(driver, "raw", bytes, (b"\xfe", "v", 1))
    assert get("/stores/raw/keys/_g==")[1]["key_encoding"] == "base64"
    name = uuid.uuid4()
    pipe(driver, "ids", uuid.UUID, (name, "v", 1))
    assert get(f"/stores/ids/keys/{name}")[1]["key"] == str(name)
    pipe(driver, "places", Place, (Place("s", 1), Place("t", 2), 1), value=Place)
    assert get('/stores/places/keys/{"shop":"s","shelf":1}')[1]["value"] == {"shop": "t", "shelf": 2}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/stores/numbers/keys/x", "its keys are long, given as JSON"),
        ("/stores/numbers/keys/1.5", "given as JSON"),
        ("/stores/raw/keys/!!", "its keys are bytes, given as base64"),
        ("/stores/ids/keys/7", "given as the text of a UUID"),
        ("/stores/places/keys/{}", "missing required field"),
        ("/stores/numbers?from=x", "given as JSON"),
        ("/stores/numbers?prefix=x", "in base64"),
    ],
)
def test_what_is_no_key_is_told_what_one_looks_like(get: Get, path: str, expected: str) -> None:
    status, body = get(path)
    assert (status, body["error"]) == (400, "bad_key")
    assert expected in body["message"]


def test_rows_come_in_pages(driver: TopologyTestDriver, get: Get) -> None:
    names = [f"{n:03}" for n in range(25)]
    pipe(driver, "words", str, *((name, "x", 1_000) for name in names))
    found: list[Any] = []
    cursor: dict[str, str] = {}
    while True:
        status, body = get("/stores/counts", limit=10, **cursor)
        assert status == 200
        found += rows(body)
        if body["cursor"] is None:
            break
        cursor = {"cursor": body["cursor"]}
    assert found == [(name, 1) for name in names]
    assert rows(get("/stores/counts", **{"from": "010", "to": "012"})[1]) == [(n, 1) for n in ("010", "011", "012")]
    assert [key for key, _ in rows(get("/stores/counts", prefix="02")[1])] == names[20:]
    first = get("/stores/counts", reverse="true", limit=3)[1]
    again = get("/stores/counts", reverse="true", limit=3, cursor=first["cursor"])[1]
    assert [key for key, _ in rows(first) + rows(again)] == names[:-7:-1]


def test_a_page_ends_when_enough_was_read_for_it_and_the_next_goes_on(
    driver: TopologyTestDriver, get: Get, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few of the rows are asked for."""
    monkeypatch.setattr(listing, "MOST_READ_BYTES", 1_000)
    monkeypatch.setattr(listing, "LIST_S", 0)
    pipe(driver, "words", str, *((f"{n:03}", "x", 1_000) for n in range(600)), ("zoe", "x", 61_000))
    pages: list[dict[str, Any]] = [{"rows": [], "cursor": None}]
    while len(pages) == 1 or pages[-1]["cursor"] is not None:
        cursor = {} if pages[-1]["cursor"] is None else {"cursor": pages[-1]["cursor"]}
        pages.append(get("/stores/minutes", from_ms=60_000, **cursor)[1])
    assert [row for page in pages for row in rows(page)] == [("zoe", 1)]
    assert len(pages) > 3


def test_windows_of_a_key_and_of_all(driver: TopologyTestDriver, get: Get) -> None:
    pipe(driver, "words", str, ("ann", "x", 1_000), ("bob", "x", 2_000), ("ann", "x", 61_000))
    body = get("/stores/minutes/keys/ann")[1]
    assert [(row["window"], row["value"]) for row in body["rows"]] == [
        ({"start": 0, "end": 60_000}, 1),
        ({"start": 60_000, "end": 120_000}, 1),
    ]
    assert [row["window"]["start"] for row in get("/stores/minutes/keys/ann", from_ms=1)[1]["rows"]] == [60_000]
    page = get("/stores/minutes/keys/ann", limit=1, reverse="true")[1]
    assert page["rows"][0]["window"]["start"] == 60_000
    rest = get("/stores/minutes/keys/ann", limit=1, reverse="true", cursor=page["cursor"])[1]
    assert [row["window"]["start"] for row in rest["rows"]] == [0]
    assert sorted(rows(get("/stores/minutes", to_ms=0)[1])) == [("ann", 1), ("bob", 1)]
    assert get("/stores/minutes/keys/nobody")[1]["rows"] == []


def test_sessions_of_a_key(driver: TopologyTestDriver, get: Get) -> None:
    pipe(driver, "words", str, ("ann", "x", 1_000), ("ann", "x", 5_000), ("ann", "x", 30_000))
    body = get("/stores/visits/keys/ann")[1]
    assert [(row["window"], row["value"]) for row in body["rows"]] == [
        ({"start": 1_000, "end": 5_000}, 2),
        ({"start": 30_000, "end": 30_000}, 1),
    ]
    assert [row["value"] for row in get("/stores/visits", to_ms=2_000)[1]["rows"]] == [2]


def test_versions_of_a_key(driver: TopologyTestDriver, get: Get) -> None:
    pipe(driver, "prices", str, ("tea", 3, 1_000), ("tea", 4, 2_000), ("jam", 9, 1_500), value=int)
    newest = get("/stores/prices/keys/tea")[1]
    assert (newest["value"], newest["timestamp"]) == (4, 2_000)
    before = get("/stores/prices/keys/tea", as_of=1_999)[1]
    assert (before["value"], before["timestamp"], before["valid_to"]) == (3, 1_000, 2_000)
    assert get("/stores/prices/keys/tea", as_of=999)[0] == 404
    history = get("/stores/prices/keys/tea", from_ms=0)[1]
    assert [row["value"] for row in history["rows"]] == [3, 4]
    assert history["truncated"] is False
    assert rows(get("/stores/prices")[1]) == [("jam", 9), ("tea", 4)]


def test_stores_of_kinds_of_their_own(driver: TopologyTestDriver, get: Get) -> None:
    pipe(driver, "latest", str, ("a", "1", 1), ("b", "2", 2), ("c", "3", 3))
    assert rows(get("/stores/latest")[1]) == [("b", "2"), ("c", "3")]
    assert get("/stores/latest/keys/b")[1]["value"] == "2"
    pipe(driver, "latest", str, ("d", "4", 4))
    assert rows(get("/stores/latest")[1]) == [("c", "3"), ("d", "4")]  # a look is no use of a row
    pipe(driver, "brief", str, ("a", "1", 1_000), ("b", "2", 5_000))
    assert rows(get("/stores/brief")[1]) == [("a", "1"), ("b", "2")]
    pipe(driver, "brief", str, ("c", "3", 6_000))
    assert rows(get("/stores/brief")[1]) == [("b", "2"), ("c", "3")]
    pipe(driver, "rates", str, ("eur", 1.5, 1), value=float)
    assert get("/stores/rates/keys/eur")[1]["value"] == 1.5
    assert rows(get("/stores/rates")[1]) == [("eur", 1.5)]


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/stores/counts?limit=0", "limit is a number from 1 to 1000, not '0'"),
        ("/stores/counts?limit=1001", "limit is a number"),
        ("/stores/counts?limit=٣", "limit is a number"),
        ("/stores/counts?limit=-1", "limit is a number"),
        ("/stores/counts?limits=1", "unknown parameter 'limits'; there are cursor, from, from_ms, limit"),
        ("/stores/counts?limit=1&limit=2", "limit is given twice"),
        ("/stores/counts?stale=yes", "stale is true or false, not 'yes'"),
        ("/stores/counts?partition=1", "partitions 0 to 0, not 1"),
        ("/stores/counts?cursor=x", "cursor is none that a listing has given"),
        ("/stores/counts?cursor=kgXA", "cursor is"),
        ("/stores/counts?from_ms=1", "'from_ms' does not go with these: from, prefix, reverse, to do"),
        ("/stores/counts?prefix=a&from=b", "prefix does not go with"),
        ("/stores/minutes?prefix=a", "'prefix' does not go with these"),
        ("/stores/prices?from_ms=1", "go with a key"),
        ("/stores/counts/keys/a?as_of=1", "as_of is for versioned stores"),
        ("/stores/counts/keys/a?reverse=true", "reverse is for lists"),
        ("/stores/counts/keys/%ff", "not UTF-8"),
        ("/stores?x=1", "unknown parameter 'x'; there are none"),
        ("/stores/rates?partition=1", "is global, and has no partitions but 0"),
    ],
)
def test_what_is_asked_wrongly_is_said(get: Get, path: str, says: str) -> None:
    status, body = get(path)
    assert (status, body["error"]) == (400, "bad_request")
    assert says in body["message"]


@pytest.mark.parametrize(
    ("refusal", "word"),
    [(StreamsRebalancingError("moving"), "rebalancing"), (StateStoreNotAvailableError("restoring"), "not_available")],
)
def test_what_cannot_be_had_now_is_to_be_asked_for_again(local: Local, get: Get, refusal: Exception, word: str) -> None:
    local.refusal = refusal
    for path in ("/stores/counts/keys/a", "/stores/counts", "/stores/minutes/keys/a"):
        status, body = get(path)
        assert (status, body["error"] in (word, "not_available"), body["message"]) == (503, True, str(refusal))


def test_workers_of_another_application_are_told_so(get: Get) -> None:
    status, body = get("/stores/counts/keys/a", headers={"streamlib-forwarded": "other"})
    assert (status, body["message"]) == (503, "this is a worker of app, and one of other was asked for")


def test_all_stores_are_listed(get: Get) -> None:
    found = {each["name"]: each for each in get("/stores")[1]["stores"]}
    assert found["counts"] | {"lag": {}} == {
        "name": "counts", "kind": "timestamped_key_value", "key": "string", "key_as": "plain text", "value": "long",
        "global": False, "partitions": 1, "active": {"0": "10.0.0.1:80"}, "here": [0], "standby_here": [], "lag": {},
    }  # fmt: skip
    assert found["rates"]["global"]


def test_rows_that_cannot_be_read_are_said_to_be_so(driver: TopologyTestDriver, local: Local, get: Get) -> None:
    driver._tasks[driver._plan.tasks[0]].backend.write({"counts": {b"bad": b"12345678x"}}, {})
    for path in ("/stores/counts/keys/bad", "/stores/counts"):
        status, body = get(path)
        assert (status, "a row cannot be read as string, long" in body["message"]) == (500, True)
