"""A new project is there as a whole or not at all; its tests pass, and its README's commands run."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from streamlib.cli.errors import UsageError
from streamlib.cli.new.project import ProjectNames, make_project
from streamlib.testing.plugin import KafkaTarget
from tests.cli.conftest import Command

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "package"),
    [("orders2", "orders2"), ("Order-Totals", "order_totals"), ("shop.order_totals", "shop_order_totals")],
)
def test_the_package_follows_from_the_name(name: str, package: str) -> None:
    assert ProjectNames.of(name).package == package


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../up", "a/b", "/tmp/x", "a\\b", "-x", "x-", "ä", "a b", "2fast", "class", "json", "streamlib",
     "tests", "a\n", "x" * 101],
)  # fmt: skip
def test_what_is_no_name_is_refused_and_nothing_written(name: str, tmp_path: Path, streamlib: Command) -> None:
    with pytest.raises(UsageError, match="cannot be a project's name"):
        make_project(ProjectNames.of(name), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["folder", "file", "dangling link"])
def test_what_is_there_is_left_alone(what: str, tmp_path: Path) -> None:
    path = tmp_path / "shop"
    match what:
        case "folder":
            path.mkdir()
        case "file":
            path.write_text("mine")
        case _:
            path.symlink_to("nowhere")
    with pytest.raises(UsageError, match="is there already"):
        make_project(ProjectNames.of("shop"), tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["shop"]


def test_what_fails_midway_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, content: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="No space left"):
        make_project(ProjectNames.of("shop"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_command_says_where_it_is_and_refuses_a_second_time(tmp_path: Path, streamlib: Command) -> None:
    assert streamlib("new", "shop").stdout == f"made {tmp_path / 'shop'}: its README.md says how to test and run it\n"
    again = streamlib("new", "shop")
    assert (again.returncode, len(again.stderr.splitlines())) == (2, 1)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(ProjectNames.of("order-totals"), tmp_path)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}


def test_its_tests_pass(project: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    ran = subprocess.run(command, cwd=project, env=environment(), capture_output=True, text=True, check=False)
    assert "2 passed" in ran.stdout, ran.stdout + ran.stderr


def test_its_code_is_clean(project: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--no-cache", "--config", "line-length=120", "."],
        cwd=project, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    typed = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "order_totals/topology.py"],
        cwd=project, env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert typed.returncode == 0, typed.stdout + typed.stderr


def commands(project: Path, *beginnings: str) -> list[list[str]]:
    """The README's commands that begin so, with this interpreter in place of that of `.venv`."""
    lines = re.findall(r"^    \.venv/bin/(.*)$", (project / "README.md").read_text(), re.MULTILINE)
    chosen = [line for beginning in beginnings for line in lines if line.startswith(beginning)]
    assert len(chosen) == len(beginnings)
    return [
        [sys.executable, *(["-m", "streamlib"] if words[0] == "streamlib" else []), *words[1:]]
        for words in map(shlex.split, chosen)
    ]


@pytest.mark.broker
def test_the_commands_of_its_readme_run(project: Path, kafka_broker: KafkaTarget) -> None:
    """All but the installation and the broker: that is one that runs already."""
    address = kafka_broker.bootstrap_servers
    config = (project / "config.toml").read_text()
    (project / "config.toml").write_text(
        f'{config}state_dir = "{project / "state"}"\n'.replace("localhost:9092", address)
    )
    topics, run, try_it, lag = commands(
        project, "streamlib broker topic", "streamlib run", "python -m", "streamlib lag"
    )
    env = environment()

    def done(command: list[str]) -> str:
        ran = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, check=False, timeout=60)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    done([*topics, "--bootstrap-servers", address])
    with (project / "log").open("wb") as log:
        application = psutil.Popen(run, cwd=project, env=env, stderr=log)
    try:
        out = done([address if word == "localhost:9092" else word for word in try_it]).splitlines()
        assert sorted(out) == [
            'ann {"orders":1,"amount":12.5}', 'ann {"orders":2,"amount":20.0}', 'bob {"orders":1,"amount":3.0}',
        ], (project / "log").read_text()  # fmt: skip
        assert "application order-totals: Stable, 1 member" in done(lag)
    finally:
        application.terminate()
        assert application.wait(30) == 0
