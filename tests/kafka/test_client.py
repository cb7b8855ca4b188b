"""The client against a scripted broker: failures, versions, metadata, repeating. Against a real one: the rest."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from streamlib.errors import ConnectionFailedError, ErrorCode, KafkaError, UnsupportedBrokerError
from streamlib.kafka import client as client_module
from streamlib.kafka.admin import KafkaAdmin
from streamlib.kafka.client import ClientSettings, KafkaClient
from streamlib.kafka.protocol.messages import APIS
from streamlib.kafka.protocol.primitives import EncodeError
from streamlib.records import TopicPartition
from streamlib.testing.plugin import KafkaTarget
from tests.kafka.fake_broker import FakeBroker

ORDERS = TopicPartition("orders", 0)


def settings(*addresses: str, connect_timeout_ms: int = 2_000) -> ClientSettings:
    return ClientSettings(
        bootstrap_servers=",".join(addresses), connect_timeout_ms=connect_timeout_ms, retry_backoff_ms=1
    )


def attempts(*outcomes: int) -> Callable[[], Any]:
    """Something to repeat that fails with these codes in turn; 0 succeeds."""
    left: Iterator[int] = iter(outcomes)

    async def attempt() -> str:
        code = next(left)
        if code:
            raise KafkaError(code, "Test")
        return "done"

    return attempt


# Connecting


async def test_unreachable_brokers_are_named_with_what_to_check(unused_ports: list[int]) -> None:
    addresses = [f"127.0.0.1:{port}" for port in unused_ports]
    with pytest.raises(ConnectionFailedError) as failed:
        await KafkaClient.connect(settings(*addresses))
    message = str(failed.value)
    assert "\n" not in message
    for part in (*addresses, "bootstrap_servers", "advertised.listeners"):
        assert part in message


async def test_second_bootstrap_address_is_enough(fake: FakeBroker, unused_ports: list[int]) -> None:
    client = await KafkaClient.connect(settings(f"127.0.0.1:{unused_ports[0]}", fake.address))
    assert list(client.brokers) == [0]
    await client.close()


async def test_broker_that_accepts_and_says_nothing_is_given_up(fake: FakeBroker) -> None:
    fake.answers["Metadata"] = lambda _: None
    with pytest.raises(ConnectionFailedError, match=r"no answer within 0\.05 s"):
        await KafkaClient.connect(settings(fake.address, connect_timeout_ms=50))


async def test_silent_broker_does_not_stall_connections_to_others(fake: FakeBroker, fake_client: KafkaClient) -> None:
    silent = await FakeBroker.start()
    silent.answers["ApiVersions"] = lambda _: None
    entry = {"node_id": 1, "host": "127.0.0.1", "port": silent.port}
    fake.answers["Metadata"] = lambda _: fake.metadata({}, entry)
    fake.answers["Heartbeat"] = lambda _: {}
    await fake_client.refresh_metadata(["orders"])

    stalled = asyncio.create_task(fake_client.call("Heartbeat", {}, node=1))
    while not silent.requests:
        await asyncio.sleep(0)
    await fake_client.call("Heartbeat", {}, node=0, lane="new")
    assert not stalled.done()
    stalled.cancel()
    await silent.stop()


async def test_too_old_broker_is_refused_with_the_release_that_is_needed(fake: FakeBroker) -> None:
    fake.versions[APIS["OffsetFetch"].key] = (0, 6)
    with pytest.raises(UnsupportedBrokerError, match=r"OffsetFetch.*2\.5 or newer"):
        await KafkaClient.connect(settings(fake.address))


async def test_broker_without_features_request_is_too_old(fake: FakeBroker) -> None:
    fake.versions[APIS["ApiVersions"].key] = (0, 2)
    with pytest.raises(UnsupportedBrokerError, match=r"2\.5 or newer"):
        await KafkaClient.connect(settings(fake.address))


# Versions


async def test_version_is_the_highest_that_both_speak(fake: FakeBroker) -> None:
    fake.versions[APIS["Produce"].key] = (0, 9)
    fake.versions[APIS["Fetch"].key] = (4, 99)
    fake.versions[APIS["EndTxn"].key] = (90, 99)
    client = await KafkaClient.connect(settings(fake.address))
    assert client.version("Produce") == 9
    assert client.version("Fetch") == 12
    with pytest.raises(UnsupportedBrokerError, match="EndTxn"):
        client.version("EndTxn")
    await client.close()


async def test_transaction_version_is_the_finalized_feature(fake: FakeBroker, fake_client: KafkaClient) -> None:
    assert fake_client.transaction_version == 0
    fake.features["transaction.version"] = 2
    fake_client.disconnect("default")
    await fake_client.refresh_metadata(())
    assert fake_client.transaction_version == 2


async def test_older_connection_does_not_bring_old_features_back(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["Heartbeat"] = lambda _: {}
    await fake_client.call("Heartbeat", {}, node=0, lane="before")
    fake.features["transaction.version"] = 2
    await fake_client.call("Heartbeat", {}, node=0, lane="after")
    await fake_client.call("Heartbeat", {}, node=0, lane="before")
    assert fake_client.transaction_version == 2


async def test_older_broker_found_later_lowers_the_version_and_asks_for_another_try(
    fake: FakeBroker, fake_client: KafkaClient
) -> None:
    older = await FakeBroker.start()
    older.versions[APIS["FindCoordinator"].key] = (0, 3)
    older.answers["FindCoordinator"] = lambda body: {"node_id": len(body.key)}
    entry = {"node_id": 1, "host": "127.0.0.1", "port": older.port}
    fake.answers["Metadata"] = lambda _: fake.metadata({}, entry)
    await fake_client.refresh_metadata(["orders"])
    assert fake_client.version("FindCoordinator") == 4

    with pytest.raises(ConnectionFailedError, match="older than the others"):
        await fake_client.call("FindCoordinator", {"coordinator_keys": ["abc"]}, node=1)
    assert fake_client.version("FindCoordinator") == 3
    assert (await fake_client.call("FindCoordinator", {"key": "abc"}, node=1)).node_id == 3
    await older.stop()


# One request


async def test_call_gives_the_answer_whatever_code_it_holds(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["Heartbeat"] = lambda _: {"error_code": 27}
    assert (await fake_client.call("Heartbeat", {}, node=0)).error_code == 27


async def test_broken_connection_fails_the_call_and_is_opened_again(fake: FakeBroker, fake_client: KafkaClient) -> None:
    def hang_up(_: object) -> None:
        fake.answers["Heartbeat"] = lambda _: {}
        fake.hang_up()

    fake.answers["Heartbeat"] = hang_up
    with pytest.raises(ConnectionFailedError, match="Heartbeat of group g"):
        await fake_client.call("Heartbeat", {}, node=0, where="group g")
    assert (await fake_client.call("Heartbeat", {}, node=0)).error_code == 0


async def test_timeout_fails_the_call_and_drops_only_its_lane(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["JoinGroup"] = lambda _: None
    fake.answers["Heartbeat"] = lambda _: {}
    await fake_client.call("Heartbeat", {}, node=0, lane="other")
    before = fake.connections
    with pytest.raises(ConnectionFailedError, match=r"did not answer within 0\.05 s"):
        await fake_client.call("JoinGroup", {}, node=0, lane="slow", timeout_ms=50)
    await fake_client.call("Heartbeat", {}, node=0, lane="other")
    assert fake.connections == before + 1
    await fake_client.call("Heartbeat", {}, node=0, lane="slow")
    assert fake.connections == before + 2


async def test_cancelled_call_leaves_the_answers_of_others_in_place(fake: FakeBroker, fake_client: KafkaClient) -> None:
    release = asyncio.Event()

    async def answer(body: Any) -> dict[str, int]:
        await release.wait()
        return {"error_code": body.generation_id}

    fake.answers["Heartbeat"] = answer
    calls = [asyncio.create_task(fake_client.call("Heartbeat", {"generation_id": n}, node=0)) for n in range(3)]
    while "Heartbeat" not in fake.requests:
        await asyncio.sleep(0)
    calls[1].cancel()
    release.set()
    assert [(await calls[n]).error_code for n in (0, 2)] == [0, 2]


async def test_cancelled_caller_does_not_cancel_a_connection_that_others_wait_for(
    fake: FakeBroker, fake_client: KafkaClient
) -> None:
    fake.answers["Heartbeat"] = lambda _: {}
    first, second = (asyncio.create_task(fake_client.call("Heartbeat", {}, node=0, lane="new")) for _ in "ab")
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).error_code == 0
    assert fake.connections == 2  # one to bootstrap, one for the lane


async def test_timeout_of_one_caller_fails_but_does_not_cancel_those_who_wait_for_the_same_connection(
    fake: FakeBroker, fake_client: KafkaClient
) -> None:
    fake.answers["ApiVersions"] = lambda _: None
    other = asyncio.create_task(fake_client.call("Heartbeat", {}, node=0, lane="new"))
    with pytest.raises(ConnectionFailedError):
        await fake_client.call("Heartbeat", {}, node=0, lane="new", timeout_ms=50)
    with pytest.raises(ConnectionFailedError, match="closed while it was being opened"):
        await other


async def test_mistake_in_a_body_is_an_encode_error(fake_client: KafkaClient) -> None:
    with pytest.raises(EncodeError, match="no field 'nonsense'"):
        await fake_client.call("Metadata", {"nonsense": 1})


async def test_nonsense_from_the_broker_is_a_kafka_error_and_the_connection_stays(
    fake: FakeBroker, fake_client: KafkaClient
) -> None:
    fake.answers["Heartbeat"] = lambda _: {}
    fake.raw["Heartbeat"] = b"nonsense"
    with pytest.raises(KafkaError, match=r"UNKNOWN_SERVER_ERROR: broker 0: Heartbeat v4 response"):
        await fake_client.call("Heartbeat", {}, node=0)
    del fake.raw["Heartbeat"]
    before = fake.connections
    assert (await fake_client.call("Heartbeat", {}, node=0)).error_code == 0
    assert fake.connections == before


async def test_max_version_caps_the_version(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["Heartbeat"] = lambda _: {}
    await fake_client.call("Heartbeat", {}, node=0, max_version=2)
    await fake_client.call("Heartbeat", {}, node=0)
    assert fake.versions_used["Heartbeat"] == [2, 4]


async def test_closed_client_fails_pending_calls(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["JoinGroup"] = lambda _: None
    pending = asyncio.create_task(fake_client.call("JoinGroup", {}, node=0))
    while "JoinGroup" not in fake.requests:
        await asyncio.sleep(0)
    await fake_client.close()
    with pytest.raises(ConnectionFailedError):
        await pending


# Repeating


async def test_retriable_errors_are_repeated_until_it_works(fake_client: KafkaClient) -> None:
    codes = (ErrorCode.CONCURRENT_TRANSACTIONS, ErrorCode.NOT_LEADER_OR_FOLLOWER, ErrorCode.NETWORK_EXCEPTION, 0)
    assert await fake_client.retrying(attempts(*codes)) == "done"


async def test_other_errors_are_raised_at_once(fake_client: KafkaClient) -> None:
    with pytest.raises(KafkaError, match="PRODUCER_FENCED"):
        await fake_client.retrying(attempts(ErrorCode.PRODUCER_FENCED))


async def test_last_error_is_raised_at_the_deadline(fake_client: KafkaClient) -> None:
    with pytest.raises(KafkaError, match="REQUEST_TIMED_OUT"):
        await fake_client.retrying(attempts(*[ErrorCode.REQUEST_TIMED_OUT] * 1000), deadline_ms=30)


async def test_what_is_repeated_for_long_is_said_once_and_its_end_too(
    fake_client: KafkaClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "_WARN_AFTER_S", 0.0)
    failures = [KafkaError(ErrorCode.NOT_ENOUGH_REPLICAS, "Produce", "orders-0") for _ in range(4)]

    async def attempt() -> None:
        await asyncio.sleep(0.001)
        if failures:
            raise failures.pop()

    with caplog.at_level(logging.INFO, "streamlib.kafka"):
        await fake_client.retrying(attempt)
    warning, over = caplog.messages
    assert warning == "tried again for 0 s: Produce of orders-0: NOT_ENOUGH_REPLICAS"
    assert over == "Produce works again, after 0 s"


async def test_moved_leader_is_asked_for_anew(fake: FakeBroker, fake_client: KafkaClient) -> None:
    await fake_client.refresh_metadata(["orders"])
    assert fake_client.leader(ORDERS) == 0
    entry = {"node_id": 7, "host": "127.0.0.1", "port": fake.port}
    fake.answers["Metadata"] = lambda _: {**fake.metadata({"orders": 1}, entry), "topics": [led_by(7)]}
    await fake_client.retrying(attempts(ErrorCode.NOT_LEADER_OR_FOLLOWER, 0))
    assert fake_client.leader(ORDERS) == 7


async def test_moved_coordinator_is_asked_for_anew(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["FindCoordinator"] = lambda _: {"coordinators": [{"key": "g", "node_id": 0}]}
    assert await fake_client.coordinator("g", "group") == 0
    assert await fake_client.coordinator("g", "group") == 0
    assert fake.requests.count("FindCoordinator") == 1
    assert await fake_client.coordinator("g", "transaction") == 0
    fake_client.forget_coordinator("g", "group")
    assert await fake_client.coordinator("g", "group") == 0
    assert fake.requests.count("FindCoordinator") == 3
    await fake_client.retrying(attempts(ErrorCode.NOT_COORDINATOR, 0))
    await fake_client.coordinator("g", "group")
    assert fake.requests.count("FindCoordinator") == 4


async def test_repeating_goes_on_while_no_broker_answers(fake: FakeBroker, fake_client: KafkaClient) -> None:
    await fake.stop()
    assert await fake_client.retrying(attempts(ErrorCode.NETWORK_EXCEPTION, ErrorCode.NETWORK_EXCEPTION, 0)) == "done"


# Metadata


def led_by(node: int) -> dict[str, Any]:
    return {"name": "orders", "partitions": [{"partition_index": 0, "leader_id": node}]}


async def test_partition_counts_leave_out_topics_that_do_not_exist(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["Metadata"] = lambda _: fake.metadata({"orders": 4, "nothing": 0})
    assert await fake_client.partition_counts(["orders", "nothing"]) == {"orders": 4}


async def test_topic_that_vanishes_in_one_answer_is_not_believed(fake: FakeBroker, fake_client: KafkaClient) -> None:
    counts = iter([4, 0, 4])
    fake.answers["Metadata"] = lambda _: fake.metadata({"orders": next(counts)})
    assert await fake_client.partition_counts(["orders"]) == {"orders": 4}
    assert await fake_client.partition_counts(["orders"]) == {"orders": 4}
    assert next(counts, None) is None


async def test_topic_that_is_gone_for_good_is_believed_in_the_end(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["Metadata"] = lambda _: fake.metadata({"orders": 4})
    await fake_client.partition_counts(["orders"])
    fake.answers["Metadata"] = lambda _: fake.metadata({"orders": 0})
    assert await fake_client.partition_counts(["orders"]) == {}
    assert fake_client.leader(ORDERS) is None


async def test_forbidden_topic_is_an_error_that_says_what_to_grant(fake: FakeBroker, fake_client: KafkaClient) -> None:
    topic = {"name": "orders", "error_code": ErrorCode.TOPIC_AUTHORIZATION_FAILED.value}
    fake.answers["Metadata"] = lambda _: {"brokers": [fake.entry], "topics": [topic]}
    with pytest.raises(KafkaError, match=r"topic orders: TOPIC_AUTHORIZATION_FAILED: grant .* Read"):
        await fake_client.partition_counts(["orders"])


async def test_refused_topic_is_told_from_one_that_is_only_unknown(fake: FakeBroker, fake_client: KafkaClient) -> None:
    topic = {"name": "orders", "error_code": ErrorCode.TOPIC_AUTHORIZATION_FAILED.value}
    fake.answers["Metadata"] = lambda _: {"brokers": [fake.entry], "topics": [topic]}
    await fake_client.refresh_metadata(["orders"])
    with pytest.raises(KafkaError, match="TOPIC_AUTHORIZATION_FAILED"):
        fake_client.check_topic("orders")
    fake.answers["Metadata"] = lambda _: fake.metadata({"orders": 0})
    await fake_client.refresh_metadata(["orders"])
    fake_client.check_topic("orders")


async def test_partition_without_leader_counts_and_has_none(fake: FakeBroker, fake_client: KafkaClient) -> None:
    fake.answers["Metadata"] = lambda _: {"brokers": [fake.entry], "topics": [led_by(-1)]}
    assert await fake_client.partition_counts(["orders"]) == {"orders": 1}
    assert fake_client.leader(ORDERS) is None


async def test_refreshes_at_the_same_time_are_two_requests_at_most(fake: FakeBroker, fake_client: KafkaClient) -> None:
    await fake_client.refresh_metadata(["orders"])
    before = fake.requests.count("Metadata")
    await asyncio.gather(*[fake_client.refresh_metadata(["orders"]) for _ in range(20)])
    assert fake.requests.count("Metadata") <= before + 2


async def test_old_metadata_is_refreshed_beside_the_next_call(fake: FakeBroker) -> None:
    client = await KafkaClient.connect(ClientSettings(bootstrap_servers=fake.address, metadata_max_age_ms=0))
    fake.answers["Heartbeat"] = lambda _: {}
    before = fake.requests.count("Metadata")
    await client.call("Heartbeat", {}, node=0)
    async with asyncio.timeout(5):
        while fake.requests.count("Metadata") == before:
            await asyncio.sleep(0)
    await client.close()


async def test_bootstrap_addresses_are_tried_again_when_all_known_brokers_are_gone(
    fake: FakeBroker, fake_client: KafkaClient
) -> None:
    fake.node_id = 5
    gone = {"node_id": 0, "host": "127.0.0.1", "port": 1}
    fake.answers["Metadata"] = lambda _: {"brokers": [gone], "topics": []}
    await fake_client.refresh_metadata(["orders"])
    fake.answers["Metadata"] = lambda _: fake.metadata({"orders": 1})
    await fake_client.refresh_metadata(["orders"])
    assert list(fake_client.brokers) == [5]


# A real cluster


async def test_real_cluster_has_the_transaction_version_of_its_release(client: KafkaClient, kafka: KafkaTarget) -> None:
    if kafka.version is not None:
        assert client.transaction_version == (2 if kafka.version.startswith("4.") else 0)


async def test_real_cluster_tells_leaders_and_counts(
    client: KafkaClient, admin: KafkaAdmin, unique_name: Callable[[str], str]
) -> None:
    topic = unique_name("orders")
    await admin.create_topic(topic, partitions=3)
    assert await client.partition_counts([topic, unique_name("nothing")]) == {topic: 3}
    assert all(client.leader(TopicPartition(topic, p)) in client.brokers for p in range(3))
    node = await client.retrying(lambda: client.coordinator(unique_name("group"), "group"))
    assert node in client.brokers
