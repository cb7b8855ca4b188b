"""Wheel and sdist install alone and hold what they have to; what an extra brings is asked for by its name."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable, Iterator, Mapping
from email.parser import HeaderParser
from pathlib import Path

import pytest

from tests.packaging.conftest import ROOT, Ran, run_uv

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
VERSION = PROJECT["version"]

WORDS = """
from streamlib import StreamsBuilder
from streamlib.testing import TopologyTestDriver

builder = StreamsBuilder()
words = builder.stream("lines", value=str).flat_map_values(str.split, value=str)
words.group_by(lambda _, word: word, key=str).count(store="counts").to_stream().to("counts")
with TopologyTestDriver(builder.build()) as driver:
    driver.input_topic("lines", value=str).pipe_input(None, "to be or not to be", timestamp_ms=0)
    print(sorted(driver.output_topic("counts", key=str, value=int).read_key_values_to_dict().items()))
"""

NEEDS = {
    "import streamlib.monitoring.prometheus": "prometheus",
    "import streamlib.monitoring.endpoint": "prometheus",
    "import streamlib.monitoring.opentelemetry": "opentelemetry",
    "import streamlib.monitoring.tracing": "opentelemetry",
    "import streamlib.schemas": "schemas",
    "from streamlib.testing.broker import Broker; Broker.start().__enter__()": "broker",
}
"""What a program says -> the extra it needs."""


def checkout() -> Iterator[str]:
    """The files of the package as they are here."""
    for path in (ROOT / "streamlib").rglob("*"):
        if path.is_file() and path.suffix != ".pyc":
            yield path.relative_to(ROOT).as_posix()


def contents(wheel: Path) -> Mapping[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_has_the_whole_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in contents(wheel) if ".dist-info/" not in name}
    assert names == set(checkout())
    assert {"streamlib/py.typed", "streamlib/testing/broker/locks/kafka-4.3.1.lock"} <= names


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    files = contents(wheel)
    info = f"streamlib-{VERSION}.dist-info"
    said = HeaderParser().parsestr(files[f"{info}/METADATA"].decode())
    assert (said["Name"], said["Version"], said["License-Expression"]) == ("streamlib", VERSION, "Apache-2.0")
    assert said["Description-Content-Type"] == "text/markdown"
    assert files[f"{info}/licenses/LICENSE"] == (ROOT / "LICENSE").read_bytes()
    assert set(said.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])


def test_the_sdist_has_what_the_wheel_is_built_from_and_no_tests(built: Path, wheel: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    others = {"CHANGELOG.md", "LICENSE", "PKG-INFO", "README.md", "pyproject.toml", ".gitignore"}
    assert names - others == set(checkout())


def test_the_sdist_builds_the_same_wheel_as_the_checkout(wheel: Path, tmp_path: Path) -> None:
    run_uv("build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT)
    (direct,) = tmp_path.glob("*.whl")
    assert contents(direct) == contents(wheel)  # which was built from the sdist


def test_version_and_topology_run_in_an_empty_environment(python: Callable[..., Ran]) -> None:
    version = python("-m", "streamlib", "--version")
    assert (version.stdout.strip(), version.stderr, version.returncode) == (VERSION, "", 0)
    ran = python("-c", WORDS)
    assert ran.stdout.strip() == "[('be', 2), ('not', 1), ('or', 1), ('to', 2)]", ran.stderr
    assert python("-c", "import streamlib; print(streamlib.__version__)").stdout.strip() == VERSION


def test_types_are_checked_where_it_is_installed(environment: Path, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "from streamlib import KStream, StreamsBuilder\n"
        "stream: KStream[str, int] = StreamsBuilder().stream('in', key=str, value=int)\n"
        "wrong: KStream[str, str] = stream\n"
    )
    options = ["--strict", "--config-file=", "--python-executable", str(environment / "python")]
    command = [sys.executable, "-m", "mypy", *options, "--cache-dir", str(tmp_path / "cache"), str(program)]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)  # here it would read the checkout
    found = [line.split(":")[1] for line in ran.stdout.splitlines() if ": error:" in line]
    assert found == ["3"], ran.stdout + ran.stderr


def test_every_command_is_there_without_extras(python: Callable[..., Ran]) -> None:
    assert python("-m", "streamlib", "--help").returncode == 0
    ran = python("-c", "from streamlib.cli.main import make_app; make_app(); from streamlib import KafkaStreams")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("code", "extra"), NEEDS.items())
def test_a_missing_extra_is_told_by_its_name(code: str, extra: str, python: Callable[..., Ran]) -> None:
    ran = python("-c", code)
    assert f"pip install 'streamlib[{extra}]'" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "extra"), [(["--metrics", "0"], "prometheus"), (["--picture", "out.svg"], "picture")]
)
def test_an_option_names_the_extra_it_needs(
    option: list[str], extra: str, tmp_path: Path, python: Callable[..., Ran]
) -> None:
    (tmp_path / "words.py").write_text(
        "from streamlib import StreamsBuilder\nbuilder = StreamsBuilder()\nbuilder.stream('in').to('out')\n"
    )
    command = "run" if extra == "prometheus" else "topology"
    ran = python("-m", "streamlib", command, "words:builder", *option)
    assert ran.returncode != 0
    assert f"pip install 'streamlib[{extra}]'" in ran.stderr.replace('"', "'"), ran.stderr
