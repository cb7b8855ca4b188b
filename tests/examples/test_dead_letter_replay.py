"""`examples/dead_letter_replay.py`, and the script beside it, literally."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.dead_letter_replay import InEuros, Invoice, Rate, config, mend, topology
from streamlib import StreamsConfig
from streamlib.testing import TopologyTestDriver
from streamlib.testing.plugin import KafkaTarget
from tests.examples.samples import ROOT

SCRIPT = ROOT / "examples" / "dead_letter_replay.sh"


def test_what_cannot_be_read_or_has_no_rate_is_put_aside_and_holds_nobody_up() -> None:
    with TopologyTestDriver(topology().build(), config=StreamsConfig.load(config, env={})) as driver:
        driver.input_topic("rates", key=str, value=Rate).pipe_input("USD", Rate(0.9))
        invoices = driver.input_topic("invoices", key=str, value=bytes)
        invoices.pipe_input("acme", b'{"amount": 10, "currency": "CHF"}')
        invoices.pipe_input("acme", b'{"amount": "10", "currency": "USD"}')
        invoices.pipe_input("acme", b'{"amount": 10, "currency": "USD"}')
        done = driver.output_topic("invoices-in-euros", key=str, value=InEuros)
        assert done.read_key_values() == [("acme", InEuros(9.0))]
        failed = driver.output_topic("invoices-failed").read_records()
        causes = [dict(record.headers)["__streams.errors.exception"] for record in failed]
        assert causes == [b"examples.dead_letter_replay.NoRate", b"msgspec.ValidationError"]


@pytest.mark.parametrize(("written", "meant"), [("1.250,50", 1250.5), ("99,90", 99.9), ("7", 7.0)])
def test_amounts_are_mended(written: str, meant: float) -> None:
    with TopologyTestDriver(mend().build(), config=StreamsConfig.load(config, env={})) as driver:
        driver.input_topic("invoices-to-mend").pipe_input(
            b"a", json.dumps({"amount": written, "currency": "EUR"}).encode()
        )
        assert driver.output_topic("invoices", value=Invoice).read_values() == [Invoice(meant, "EUR")]


@pytest.mark.parametrize("value", ['{"amount": "as agreed", "currency": "EUR"}', "no JSON"])
def test_what_cannot_be_mended_is_left_to_people(value: str) -> None:
    with TopologyTestDriver(mend().build(), config=StreamsConfig.load(config, env={})) as driver:
        driver.input_topic("invoices-to-mend").pipe_input(b"a", value.encode())
        assert [record.value for record in driver.output_topic("invoices-hopeless").read_records()] == [value.encode()]


def test_script_works_line_by_line(kafka_broker: KafkaTarget, tmp_path: Path) -> None:
    if kafka_broker.broker is None:
        pytest.skip("examples have names of their own, and a cluster that was given by address may know them")
    command = tmp_path / "streamlib"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m streamlib "$@"\n')
    command.chmod(0o755)
    settings = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "STREAMLIB_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "STREAMLIB_STATE_DIR": str(tmp_path / "state"),
        "XDG_STATE_HOME": str(tmp_path / "home"),  # no broker of `streamlib broker start`
    }
    done = subprocess.run(
        ["bash", str(SCRIPT)], env=os.environ | settings, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    euros = [float(each) for each in re.findall(r'^\w+\t{"euros":(.+)}$', done.stdout, re.MULTILINE)]
    assert [sorted(part) for part in (euros[:2], euros[2:5], euros[5:])] == [
        [9.0, 250.0],
        [9.0, 84.0, 250.0],
        [9.0, 84.0, 89.91, 250.0, 1250.5],
    ]
    told = [line for line in done.stdout.splitlines() if line.startswith(("records", "there is"))]
    assert told == ["records replayed: 1", "records replayed: 3", "there is nothing to replay in invoices-failed"]
    assert "examples.dead_letter_replay.NoRate: no rate for CHF" in done.stdout
    assert "could not convert string to float: 'as agreed'" in done.stdout
