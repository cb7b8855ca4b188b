"""What programs read: errors as JSON, exit codes; and what shells offer at Tab."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from streamlib.cli.completion import complete_setting, complete_target, topologies_in
from tests.cli.conftest import MODULE, Command, Write


def told(stderr: str) -> dict[str, Any]:
    (line,) = stderr.splitlines()
    error = json.loads(line)["error"]
    assert list(error) == ["type", "message", "exit_code", "traceback"]
    return dict(error)


@pytest.mark.parametrize(
    ("arguments", "kind", "code", "said"),
    [
        (["topology", "flows:topologie"], "UsageError", 2, "did you mean 'topology'?"),
        (["topology", "flows:topology", "--set", "comit_interval_ms=3"], "ConfigError", 1, "commit_interval_ms"),
        (["topology", "flows:topology", "--nonsense"], "UsageError", 2, "--nonsense"),
        (["topolgy"], "UsageError", 2, "Did you mean 'topology'"),
        (["topology"], "UsageError", 2, "MODULE:NAME"),
        (["lag", "shop", "--watch", "x"], "UsageError", 2, "'--watch'"),
        (["verify", "flows:nothing"], "UsageError", 2, "has no 'nothing'"),
        (["diff", "no.json", "flows:topology"], "UsageError", 2, "No such file"),
        (["new", "../shop"], "UsageError", 2, "cannot be a project's name"),
        (["reset", "shop"], "UsageError", 2, "--yes or --dry-run"),
        (["dlq", "replay", "dead"], "UsageError", 2, "--yes or --dry-run"),
    ],
)
def test_errors_are_json_if_that_is_asked_for(
    arguments: list[str], kind: str, code: int, said: str, write_module: Write, streamlib: Command
) -> None:
    write_module("flows", MODULE)
    done = streamlib(*arguments, "--json")
    error = told(done.stderr)
    assert (done.returncode, done.stdout, error["type"], error["exit_code"]) == (code, "", kind, code)
    assert said in error["message"]


def test_frames_of_the_users_code_are_told_apart(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    error = told(streamlib("topology", "flows:explode", "--json").stderr)
    assert error["message"].startswith("flows:explode() failed: ValueError")
    assert any("int(" in line for line in error["traceback"])


def test_no_broker_is_an_error_like_others(streamlib: Command) -> None:
    words = ["lag", "shop", "--bootstrap-servers", "127.0.0.1:1", "--set", "request_timeout_ms=500", "--json"]
    done = streamlib(*words)
    assert done.returncode == 1
    assert told(done.stderr)["type"] == "ConnectionFailedError"


def test_help_and_results_are_as_without(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    done = streamlib("topology", "flows:topology", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["format"] == 1
    assert "Usage" in streamlib("topology", "--help", "--json").stdout


def test_targets_are_completed_without_running_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "revenue.py").write_text(
        f"raise SystemExit\n{MODULE}\ntyped: Topology = None\n_own = build()\n"
    )
    (tmp_path / "shop" / "broken.py").write_text("def")
    (tmp_path / "shop" / "notes.txt").write_text("")
    assert complete_target("s") == ["shop/"]
    assert complete_target("shop/") == ["shop/broken.py", "shop/revenue.py"]
    names = ["topology", "builder", "make", "typed"]
    assert complete_target("shop/revenue.py:") == [f"shop/revenue.py:{name}" for name in names]
    assert complete_target("shop.revenue:b") == ["shop.revenue:builder"]
    assert topologies_in(tmp_path / "shop" / "broken.py") == topologies_in(tmp_path / "none.py") == []


def test_settings_are_completed_but_for_secrets() -> None:
    assert "bootstrap_servers=" in complete_setting("boot")
    assert complete_setting("sasl_mech") == ["sasl_mechanism="]
    assert "sasl_password=" not in complete_setting("")


@pytest.mark.parametrize(
    ("shell", "typed", "offered"),
    [
        ("zsh", "streamlib lag shop --set commit_int", "commit_interval_ms="),
        ("zsh", "streamlib top", "topology"),
        ("fish", "streamlib broker st", "status"),
        ("zsh", "streamlib run flo", "flows.py"),
    ],
)
def test_a_shell_is_told_what_to_offer(
    shell: str, typed: str, offered: str, write_module: Write, tmp_path: Path
) -> None:
    write_module("flows", MODULE)
    asked = {"_STREAMLIB_COMPLETE": f"complete_{shell}", "_TYPER_COMPLETE_ARGS": typed}
    asked["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    command = Path(sys.executable).with_name("streamlib")
    ran = subprocess.run(
        [command], cwd=tmp_path, env=os.environ | asked, capture_output=True, text=True, check=False, timeout=60
    )
    assert offered in ran.stdout, ran.stderr
