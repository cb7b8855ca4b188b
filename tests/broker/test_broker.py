"""A real broker: starts, serves transactions, comes back, and leaves nothing behind."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient

from streamlib.testing.broker import Broker, BrokerError, BrokerStartError
from streamlib.testing.plugin import KafkaTarget

OWNER = """
import threading
from streamlib.testing.broker import Broker
with Broker.start() as broker:
    print(broker.nodes[0].pid, broker.data_dir, flush=True)
    threading.Event().wait()
"""


async def commit_and_read(bootstrap_servers: str, topic: str, copies: int = 1) -> list[bytes]:
    """Creates a topic, commits one transaction, and reads it back."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 1, copies)])
    await admin.close()
    async with (
        AIOKafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id=topic) as producer,
        producer.transaction(),
    ):
        await producer.send_and_wait(topic, b"committed")
    return await read(bootstrap_servers, topic)


async def read(bootstrap_servers: str, topic: str) -> list[bytes]:
    """The committed values of the topic's only partition."""
    partition = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, isolation_level="read_committed", enable_auto_commit=False
    ) as consumer:
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        return [(await consumer.getone()).value]


async def test_broker_serves_transactions(kafka: KafkaTarget, unique_name: Callable[[str], str]) -> None:
    assert await commit_and_read(kafka.bootstrap_servers, unique_name("orders")) == [b"committed"]


@pytest.mark.broker
async def test_node_comes_back_with_its_data(unique_name: Callable[[str], str]) -> None:
    topic = unique_name("orders")
    with Broker.start() as broker:
        pids = {broker.nodes[0].pid}
        await commit_and_read(broker.bootstrap_servers, topic)
        broker.stop_node(0)
        broker.start_node(0)
        pids.add(broker.nodes[0].pid)
        broker.kill_node(0)
        broker.start_node(0)
        pids.add(broker.nodes[0].pid)
        assert await read(broker.bootstrap_servers, topic) == [b"committed"]
    assert len(pids) == 3
    assert not any(map(psutil.pid_exists, pids))
    assert not broker.data_dir.exists()


@pytest.mark.broker
def test_data_dir_is_kept_and_used_again(tmp_path: Path) -> None:
    with Broker.start(data_dir=tmp_path) as first:
        cluster_id = (tmp_path / "cluster.id").read_text()
    with Broker.start(data_dir=tmp_path) as second:
        assert second.ports != first.ports
    assert (tmp_path / "cluster.id").read_text() == cluster_id


@pytest.mark.broker
async def test_proxied_listener_advertises_the_proxy() -> None:
    with Broker.start(proxied_port=45999) as broker:
        client = AIOKafkaClient(bootstrap_servers=f"127.0.0.1:{broker.proxy_target_port}")
        await client.bootstrap()
        nodes = client.cluster.brokers()
        await client.close()
    assert [(node.host, node.port) for node in nodes] == [("127.0.0.1", 45999)]


@pytest.mark.broker
@pytest.mark.slow
async def test_three_nodes_outlive_one(kafka_cluster: Broker, unique_name: Callable[[str], str]) -> None:
    topic = unique_name("orders")
    await commit_and_read(kafka_cluster.bootstrap_servers, topic, copies=3)
    kafka_cluster.kill_node(0)
    assert await read(kafka_cluster.bootstrap_servers, topic) == [b"committed"]
    kafka_cluster.start_node(0)
    assert all(node.is_running() for node in kafka_cluster.nodes)


@pytest.mark.broker
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGINT])
def test_nothing_survives_the_owner(signum: int) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert owner.stdout is not None
    pid, data_dir = owner.stdout.readline().split()
    jvm = psutil.Process(int(pid))
    guard = jvm.parent()
    assert guard is not None
    owner.send_signal(signum)
    owner.wait()
    owner.stdout.close()
    jvm.wait(10)
    guard.wait(10)
    assert not Path(data_dir).exists()


@pytest.mark.broker
def test_settings_that_kafka_refuses_are_reported_with_its_words() -> None:
    with pytest.raises(BrokerError, match=r"(?s)Kafka .*num\.io\.threads"):
        Broker.start(config={"num.io.threads": "none"})


@pytest.mark.broker
def test_jvm_that_dies_early_is_reported_with_its_log() -> None:
    with pytest.raises(BrokerStartError, match=r"(?s)Kafka ended while it started.*no\.such\.Reporter"):
        Broker.start(config={"metric.reporters": "no.such.Reporter"})


def test_taken_port_is_named(kafka_broker: KafkaTarget) -> None:
    port = int(kafka_broker.bootstrap_servers.split(",")[0].rsplit(":", 1)[1])
    with pytest.raises(BrokerError, match=f"port {port} of 127.0.0.1 is taken"):
        Broker.start(port=port)


def test_cluster_has_at_least_one_node() -> None:
    with pytest.raises(BrokerError, match="at least one node, not 0"):
        Broker.start(nodes=0)
