"""`streamlib broker start | status | stop`, each as its own process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

COMMAND = [sys.executable, "-c", "from streamlib.cli.broker import app; app()"]


class Shell:
    """Runs the command with a state folder of its own."""

    def __init__(self, home: Path) -> None:
        self.env = os.environ | {"XDG_STATE_HOME": str(home)}

    def run(self, *args: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([*COMMAND, *args], env=self.env, capture_output=True, text=True, check=False)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    shell = Shell(tmp_path)
    yield shell
    shell.run("stop")


def test_status_without_a_broker(shell: Shell) -> None:
    status = shell.run("status")
    assert (status.returncode, status.stdout) == (3, "no broker is running\n")
    assert json.loads(shell.run("status", "--json").stdout) == {"running": False}
    assert shell.run("stop").stdout == "no broker is running\n"
    assert "'streamlib broker start' starts one" in shell.run("topic", "lines").stderr


@pytest.mark.broker
def test_started_broker_goes_on_until_stop(shell: Shell, free_port: int) -> None:
    started = json.loads(shell.run("start", "--port", str(free_port), "--json").stdout)
    jvm = [psutil.Process(pid) for pid in started["pids"]]
    assert started["bootstrap_servers"] == f"127.0.0.1:{free_port}"
    assert json.loads(shell.run("status", "--json").stdout) == started
    again = shell.run("start", "--port", str(free_port))
    assert again.returncode == 1
    assert "already running" in again.stderr
    created = shell.run("topic", "lines", "counts", "--partitions", "3")
    assert created.stdout == "created: lines, counts with 3 partitions each\n"
    assert "TOPIC_ALREADY_EXISTS" in shell.run("topic", "lines").stderr
    assert shell.run("stop").stdout == f"Kafka 4.3.1 stopped: 127.0.0.1:{free_port}\n"
    psutil.wait_procs(jvm, timeout=10)  # gone, but its zombie may wait for init
    assert not any(process.is_running() for process in jvm)
    assert not Path(started["data_dir"]).exists()
    assert shell.run("status").returncode == 3


@pytest.mark.broker
@pytest.mark.slow
def test_a_node_of_three_can_be_killed_stopped_and_restarted(shell: Shell, free_port: int) -> None:
    started = json.loads(shell.run("start", "--nodes", "3", "--port", str(free_port), "--json").stdout)
    one, two, three = started["pids"]
    assert shell.run("node", "kill", "2").returncode == 0
    assert f"pids: {one}, down, {three}" in shell.run("status").stdout
    again = json.loads(shell.run("node", "restart", "2", "--json").stdout)
    assert again["running"]
    assert again["down"] == []
    assert again["pids"][1] != two
    # Not before: with one of three there is no majority, and nobody to say goodbye to.
    assert json.loads(shell.run("node", "stop", "3", "--json").stdout)["down"] == [3]
    assert "there is no node 4: the broker has nodes 1 to 3" in shell.run("node", "kill", "4").stderr
    nodes = [psutil.Process(again["pids"][i]) for i in (0, 1)]
    shell.run("stop")
    psutil.wait_procs(nodes, timeout=10)  # gone, but its zombie may wait for init
    assert not any(node.is_running() for node in nodes)


def test_no_node_of_no_broker_can_be_killed(shell: Shell) -> None:
    assert "no broker is running" in shell.run("node", "kill", "1").stderr


@pytest.mark.broker
def test_broker_that_was_killed_is_not_running(shell: Shell, free_port: int) -> None:
    started = json.loads(shell.run("start", "--port", str(free_port), "--json").stdout)
    jvm = psutil.Process(started["pids"][0])
    jvm.kill()
    jvm.wait(10)
    assert shell.run("status").returncode == 3
    assert shell.run("start", "--port", str(free_port)).returncode == 0


@pytest.mark.broker
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_foreground_broker_ends_with_the_command(shell: Shell, free_port: int, signum: int) -> None:
    command = [*COMMAND, "start", "--foreground", "--port", str(free_port), "--json"]
    process = subprocess.Popen(command, env=shell.env, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    [pid] = json.loads(process.stdout.readline())["pids"]
    process.send_signal(signum)
    assert process.wait(30) == 0
    process.stdout.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.broker
def test_unknown_version_is_one_line(shell: Shell) -> None:
    result = shell.run("start", "--version", "0.0.1")
    assert result.returncode == 1
    assert "error: cannot resolve org.apache.kafka:kafka_2.13:0.0.1" in result.stderr
    assert "Traceback" not in result.stderr
