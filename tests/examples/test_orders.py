"""`examples/orders`: its own tests pass, its settings are settings, and the commands of its README work."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from streamlib import StreamsConfig
from streamlib.testing.plugin import KafkaTarget
from tests.examples.samples import ROOT, delete_topics

FOLDER = ROOT / "examples" / "orders"
STREAMLIB = f"{sys.executable} -m streamlib"


def environment(**settings: str) -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT)} | settings


def shell(command: str, **settings: str) -> str:
    words = ["bash", "-c", command.replace("streamlib", STREAMLIB)]
    done = subprocess.run(
        words, cwd=FOLDER, env=environment(**settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_its_own_tests_pass() -> None:
    told = shell(f"{sys.executable} -m pytest -q -p no:cacheprovider --rootdir . -c pyproject.toml")
    assert re.search(r"^1\d passed", told, re.MULTILINE), told


def test_settings_are_those_of_streamlib(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret")
    of_the_host = dict(
        line.split("=", 1)
        for line in (FOLDER / "deploy" / "orders.env").read_text().splitlines()
        if not line.startswith("#")
    )
    of_the_host["STREAMLIB_SASL_PASSWORD_FILE"] = str(password)
    for file, env in (("development.toml", {}), ("production.toml", of_the_host)):
        settings = StreamsConfig.load(file=FOLDER / file, env=env)
        assert settings.processing_guarantee == "exactly_once_v2"


def test_topology_is_described_and_compared_as_the_readme_says(tmp_path: Path) -> None:
    deployed = tmp_path / "deployed.json"
    shell(f"streamlib topology shop.topology --json > {deployed}")
    shell(f"streamlib diff {deployed} shop.topology")


def test_commands_of_the_readme_work(kafka_broker: KafkaTarget, tmp_path: Path) -> None:
    if kafka_broker.broker is None:
        pytest.skip("examples have names of their own, and a cluster that was given by address may know them")
    settings = {
        "STREAMLIB_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "STREAMLIB_STATE_DIR": str(tmp_path / "state"),
        "XDG_STATE_HOME": str(tmp_path / "home"),
    }
    commands = re.findall(r"^    (.*streamlib (?:broker topic|run|produce|consume) .+)$", readme(), re.MULTILINE)
    topics, run, *others = commands
    shell(topics, **settings)
    with (tmp_path / "log").open("wb") as log:
        words = run.replace("streamlib", STREAMLIB, 1).split()
        worker = subprocess.Popen(words, cwd=FOLDER, env=environment(**settings), stdout=log, stderr=log)
    try:
        told = [shell(command, **settings) for command in others]
        assert told[-1] == 'o1\t{"customer":"ann","country":"DE","total":1380,"paid":1380}\n'
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, (tmp_path / "log").read_text()
    finally:
        worker.kill()
        worker.wait()
        delete_topics(topics, kafka_broker.bootstrap_servers)


def readme() -> str:
    return (FOLDER / "README.md").read_text()
