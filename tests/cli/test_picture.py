"""`streamlib topology --picture`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from streamlib import StreamsBuilder, Topology
from streamlib.cli.errors import UsageError
from streamlib.cli.picture import draw_picture
from tests.cli.conftest import MODULE, Command, Write


@pytest.fixture
def topology() -> Topology:
    builder = StreamsBuilder()
    builder.table("in", key=str, value=str, store="rows").to_stream().to("out")
    return builder.build()


@pytest.mark.parametrize(
    ("suffix", "start"),
    [("svg", b"<?xml"), ("PNG", b"\x89PNG"), ("pdf", b"%PDF"), ("dot", b"digraph"), ("mmd", b"flowchart")],
)
def test_the_files_name_says_what_it_becomes(topology: Topology, tmp_path: Path, suffix: str, start: bytes) -> None:
    file = tmp_path / f"picture.{suffix}"
    draw_picture(topology, file)
    assert file.read_bytes().startswith(start)


def test_a_picture_shows_nodes_topics_and_stores(topology: Topology, tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    draw_picture(topology, file)
    text = file.read_text()
    for name in ("Sub&#45;topology 0", "KTABLE&#45;SOURCE&#45;0000000001", ">in<", ">out<", ">rows<"):
        assert name in text


def test_other_formats_are_refused(topology: Topology, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"ends with one of \.svg, \.png"):
        draw_picture(topology, tmp_path / "picture.jpeg")


def test_a_file_that_cannot_be_written_is_named(topology: Topology, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere.*No such file"):
        draw_picture(topology, tmp_path / "nowhere" / "picture.dot")


def test_without_graphviz_it_is_said_how_to_get_it(
    topology: Topology, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(UsageError, match=r"pip install 'streamlib\[picture\]'"):
        draw_picture(topology, tmp_path / "picture.svg")
    draw_picture(topology, tmp_path / "picture.mmd")


def test_the_command_draws(write_module: Write, streamlib: Command, tmp_path: Path) -> None:
    write_module("flows", MODULE)
    done = streamlib("topology", "flows:topology", "--picture", "flows.svg")
    assert (done.returncode, done.stdout) == (0, "")
    assert (tmp_path / "flows.svg").read_text().startswith("<?xml")


def test_the_command_says_in_a_line_why_it_does_not(write_module: Write, streamlib: Command) -> None:
    write_module("flows", MODULE)
    done = streamlib("topology", "flows:topology", "--picture", "flows.gif")
    assert done.returncode == 2
    assert done.stderr == "error: --picture flows.gif: a picture's name ends with one of .svg, .png, .pdf, .dot, .mmd\n"
