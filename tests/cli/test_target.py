from __future__ import annotations

import pytest

from streamlib.cli.errors import UsageError, describe
from streamlib.cli.target import load_target, split_target
from streamlib.errors import TopologyError
from tests.cli.conftest import MODULE, Write


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("shop:flow", ("shop", "flow")),
        ("shop", ("shop", "topology")),
        ("shop.revenue:flow", ("shop.revenue", "flow")),
        ("shop/revenue.py:flow", ("shop.revenue", "flow")),
        ("./shop/revenue.py", ("shop.revenue", "topology")),
        ("shop/revenue", ("shop.revenue", "topology")),
    ],
)
def test_target_is_a_module_or_a_file_and_a_name(text: str, expected: tuple[str, str]) -> None:
    assert split_target(text) == expected


@pytest.mark.parametrize("text", [":flow", "", "my-shop:flow", "shop..x"])
def test_what_cannot_be_a_module_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no module"):
        split_target(text)


@pytest.mark.parametrize(
    ("name", "sink"), [("topology", "out"), ("builder", "out"), ("make", "made"), ("make_topology", "made")]
)
def test_topology_builder_and_function_are_loaded(write_module: Write, name: str, sink: str) -> None:
    write_module("flows", MODULE)
    target = load_target(f"flows:{name}")
    assert (target.module, target.name, target.config) == ("flows", name, None)
    assert sink in str(target.topology.describe())


def test_module_in_a_folder_is_loaded_by_its_file_name(write_module: Write) -> None:
    write_module("shop.flows", MODULE)
    assert load_target("shop/flows.py").module == "shop.flows"


def test_tracing_of_the_module_comes_along(write_module: Write) -> None:
    made = "from streamlib.monitoring.tracing import OpenTelemetryTracing\ntracing = OpenTelemetryTracing()\n"
    assert load_target(write_module("traced", MODULE + made)).tracing is not None
    assert load_target(write_module("named_so", MODULE + "tracing = True\n")).tracing is None


def test_config_of_the_module_comes_along(write_module: Write) -> None:
    write_module("configured", MODULE + '\nconfig = {"application_id": "x"}\n')
    assert load_target("configured").config == {"application_id": "x"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("flows:topologie", "has no 'topologie'; did you mean 'topology'? it has builder, topology, make"),
        ("flows:zzz", "has no 'zzz'; it has builder, topology, make"),
        ("flows:not_a_topology", "is a int, not a Topology"),
        ("flows:needs_argument", "cannot be called without arguments"),
        ("flows:returns_none", "returned a NoneType"),
        ("nowhere:flow", "no module named 'nowhere'"),
        ("flows.deeper:flow", "no module named 'flows.deeper'"),
        ("nowhere.deeper:flow", "no module named 'nowhere.deeper'"),
    ],
)
def test_what_is_not_there_is_said_with_what_is(write_module: Write, target: str, message: str) -> None:
    write_module("flows", MODULE)
    with pytest.raises(UsageError) as caught:
        load_target(target)
    assert message in str(caught.value)


def test_module_without_any_topology_says_how_to_make_one(write_module: Write) -> None:
    write_module("nothing", "x = 1\n")
    with pytest.raises(UsageError, match=r"assign the result of StreamsBuilder\.build\(\)"):
        load_target("nothing")


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("import notthere\n", "cannot import 'broken': ModuleNotFoundError: No module named 'notthere'", None),
        ("x = 1\ny = x / 0\n", "cannot import 'broken': ZeroDivisionError", "ZeroDivisionError: division by zero"),
        ("x = (\n", "cannot import 'broken': SyntaxError", "SyntaxError: '(' was never closed"),
    ],
)
def test_module_that_fails_is_shown_from_its_own_frame_on(
    write_module: Write, text: str, first: str, last: str | None
) -> None:
    write_module("broken", text)
    with pytest.raises(TopologyError) as caught:
        load_target("broken")
    lines = describe(caught.value).splitlines()
    assert lines[0].startswith(first)
    assert "broken.py" in lines[1]
    assert not any("importlib" in line or "streamlib" in line for line in lines[1:])
    if last is not None:
        assert lines[-1] == last


def test_function_that_fails_is_shown_from_its_own_frame_on(write_module: Write) -> None:
    write_module("flows", MODULE)
    with pytest.raises(TopologyError) as caught:
        load_target("flows:explode")
    lines = describe(caught.value).splitlines()
    assert lines[0].startswith("flows:explode() failed: ValueError")
    assert lines[1].endswith("in explode")
    assert lines[-1] == "ValueError: invalid literal for int() with base 10: 'x'"
