from __future__ import annotations

from tests.cli.conftest import MODULE, Command, Write


def test_topology_prints_the_description(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    done = streamlib("topology", "flows:topology")
    assert done.returncode == 0
    assert done.stdout.startswith("Topologies:\n   Sub-topology: 0")
    assert "(topics: [in])" in done.stdout
    assert "(topic: out)" in done.stdout


def test_what_is_not_there_is_one_line_and_exit_code_2(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    done = streamlib("topology", "flows:topologie")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: module 'flows' has no 'topologie'; did you mean 'topology'? it has builder, topology, make\n"  # fmt: skip # noqa: E501


def test_wrong_setting_is_one_line_and_names_the_nearest(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    done = streamlib("run", "flows", "--set", "comit_interval_ms=3")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "commit_interval_ms" in done.stderr


def test_user_function_that_fails_is_shown_without_our_frames(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    done = streamlib("topology", "flows:explode")
    assert done.returncode == 1
    assert done.stderr.startswith("error: flows:explode() failed: ValueError")
    assert "cli/" not in done.stderr
    debug = streamlib("topology", "flows:explode", env={"STREAMLIB_DEBUG": "1"})
    assert "Traceback (most recent call last)" in debug.stderr


def test_unknown_option_and_command_are_exit_code_2(streamlib: Command) -> None:
    assert streamlib("run", "--nonsense").returncode == 2
    assert streamlib("nonsense").returncode == 2


def test_help_has_examples(streamlib: Command) -> None:
    for command in ("run", "topology", "verify", "demo", "produce", "consume", "lag", "reset"):
        done = streamlib(command, "--help")
        assert done.returncode == 0
        assert f"streamlib {command}" in done.stdout
