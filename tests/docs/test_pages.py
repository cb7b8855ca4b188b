"""The code in all pages: Python runs, commands and their options exist, files can be read and name real settings."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from streamlib import StreamsConfig
from streamlib.cli.main import make_app
from streamlib.config import SECRET_FILES
from tests.docs.blocks import PAGES, README, ROOT, Block, fenced, indented, inline, pages
from tests.docs.prepared import BEFORE, PREPARED

RUN_ELSEWHERE = {PAGES / "tutorial.md", PAGES / "examples.md"}  # as files: test_new_user.py, tests/examples
READABLE = {"python", "pycon", "sh", "bash", "console", "text", "yaml", "toml", "sql", "mermaid"}

ALL = [block for page in pages() for block in fenced(page)]
STREAMLIB: Any = typer.main.get_command(make_app())
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), flags=re.M))


def named(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_every_block_says_what_it_is() -> None:
    assert [block.where for block in ALL if block.language not in READABLE] == []


@pytest.mark.filterwarnings("ignore:coroutine")  # of awaited calls that are compiled and not made
@pytest.mark.parametrize("page", [page for page in pages() if page not in RUN_ELSEWHERE], ids=named)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All blocks of a page are one program; what needs a broker, what is awaited, is checked to be Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    names: dict[str, Any] = {"__name__": f"page_{page.stem.replace('-', '_')}"}
    monkeypatch.setitem(sys.modules, names["__name__"], type(sys)(names["__name__"]))
    sys.modules[names["__name__"]].__dict__.update(names)
    names = sys.modules[names["__name__"]].__dict__
    exec(compile(PREPARED.get(page.name, ""), f"prepared for {page.name}", "exec"), names)
    with ExitStack() as names["closing"]:
        for block in fenced(page):
            if block.language == "python":
                if block.title:
                    (tmp_path / block.title).write_text(block.code)
                    monkeypatch.delitem(sys.modules, Path(block.title).stem, raising=False)  # somebody else's
                exec(BEFORE.get(block.code.partition("\n")[0], ""), names)
                run(block, names, tmp_path)
            elif block.language == "pycon":
                test = doctest.DocTestParser().get_doctest(block.code, names, block.where, str(page), block.line)
                assert doctest.DocTestRunner().run(test).failed == 0


def run(block: Block, names: dict[str, Any], folder: Path) -> None:
    """Lines are numbered as in the page."""
    code = "\n" * block.line + with_secrets(block.code, folder)
    compile(code, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    module = ast.parse(code)
    module.body = [statement for statement in module.body if not awaits(statement)]
    exec(compile(module, str(block.page), "exec"), names)


def with_secrets(code: str, folder: Path) -> str:
    """Files of secrets are in a folder of ours."""
    for name in re.findall(r"/run/secrets/([\w-]+)", code):
        (folder / name).write_text("secret")
    return code.replace("/run/secrets", str(folder))


def awaits(statement: ast.stmt) -> bool:
    """Outside of functions."""
    if isinstance(statement, ast.AsyncFunctionDef | ast.FunctionDef | ast.ClassDef):
        return False
    return any(isinstance(node, ast.Await | ast.AsyncWith | ast.AsyncFor) for node in ast.walk(statement))


@pytest.mark.parametrize("page", pages(), ids=named)
def test_commands_exist(page: Path) -> None:
    for where, line in command_lines(page):
        try:
            check_command(shlex.split(line, comments=True))
        except ValueError as error:
            pytest.fail(f"{where}: {line}: {error}")


@pytest.mark.parametrize(
    "line",
    [
        "streamlib runn",
        "streamlib run --wrkers 3",
        "pip install 'streamlib[brooker]'",
        "make tset",
        "python -m tests.x",
    ],
)
def test_commands_that_do_not_exist_are_found(line: str) -> None:
    with pytest.raises(ValueError, match="no "):
        check_command(shlex.split(line))


def command_lines(page: Path) -> Iterator[tuple[str, str]]:
    """Commands in blocks, continued lines joined, and within lines where they are more than a name."""
    for block in (*fenced(page), *indented(page)):
        if block.language in ("", "sh", "bash", "console"):
            text = re.sub(r"\\\n\s*", " ", block.code)
            for part in re.split(r"\n|\s*(?:\||&&|;)\s+|(?<!>)& ", text):
                line = part.strip().removeprefix("$ ").split("<<")[0]
                if re.match(r"(streamlib|pip|make|python3? -m) ", line):
                    yield block.where, re.sub(r"\s[12]?>+\s?\S+|\s2>&1|\s&$", "", line)
    for code in inline(page):
        if re.match(r"(streamlib|pip install|make|python -m) ", code):
            yield page.name, code


def check_command(words: list[str]) -> None:
    """Raises ValueError."""
    match words:
        case ["streamlib", *rest]:
            check_streamlib(rest)
        case ["pip", "install", *rest]:
            for each in rest:
                extra = re.fullmatch(r"streamlib\[([\w,-]+)\]", each)
                if extra and (unknown := set(extra.group(1).split(",")) - EXTRAS.keys()):
                    raise ValueError(f"no extra {unknown}")
        case ["make", target, *_] if target not in TARGETS:
            raise ValueError(f"no target {target}")
        case [_, "-m", module, *_] if module.split(".")[0] in ("streamlib", "tests", "benchmarks"):
            if importlib.util.find_spec(module) is None:
                raise ValueError(f"no module {module}")


def check_streamlib(words: list[str]) -> None:
    """The command and its options; values in capitals, dots and slashes between choices stand for something."""
    command = STREAMLIB
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        name, *words = words
        if "|" in name:
            for each in name.split("|"):
                check_one_of(command, each)
            return
        command = check_one_of(command, name)
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    given = {word.partition("=")[0].strip("[]") for word in words if word.startswith("-") and word.strip("-")}
    if unknown := given - known - {"--help"}:
        raise ValueError(f"no option {unknown}")


def check_one_of(group: Any, name: str) -> Any:
    if name not in group.commands:
        raise ValueError(f"no command {name}")
    return group.commands[name]


@pytest.mark.parametrize("block", [each for each in ALL if each.language == "yaml"], ids=lambda block: block.where)
def test_yaml_can_be_read_and_names_settings_there_are(block: Block) -> None:
    check_settings_in(list(yaml.safe_load_all(block.code)))


def check_settings_in(document: Any) -> None:
    """Variables of containers that begin with STREAMLIB_."""
    match document:
        case {"name": str(name)} if name.startswith("STREAMLIB_"):
            check_setting(name)
        case {"command": ["streamlib", *words]}:
            check_streamlib([str(word) for word in words])
            check_settings_in({name: each for name, each in document.items() if name != "command"})
        case dict():
            for name, each in document.items():
                if str(name).startswith("STREAMLIB_"):
                    check_setting(name)
                check_settings_in(each)
        case list():
            for each in document:
                check_settings_in(each)


def check_setting(variable: str) -> None:
    """A variable of the environment, with or without its prefix."""
    name = variable.removeprefix("STREAMLIB_").lower()
    assert name in {*StreamsConfig.__struct_fields__, *SECRET_FILES} or name.startswith("client_tag_"), variable


@pytest.mark.parametrize("block", [each for each in ALL if each.language == "toml"], ids=lambda block: block.where)
def test_toml_is_a_file_of_settings(block: Block, tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text(with_secrets(block.code, tmp_path))
    StreamsConfig.load({"application_id": "app"}, file=file, env={})


@pytest.mark.parametrize("page", pages(), ids=named)
def test_settings_in_the_text_exist(page: Path) -> None:
    """Names that end as settings do, and variables of the environment."""
    fields = StreamsConfig.__struct_fields__
    known = {*fields, *ARGUMENTS}
    for code in inline(page):
        for name in re.findall(r"(?<![\w.])([a-z]+(?:_[a-z]+)*_(?:ms|bytes|replicas|protocol|guarantee))(?:\b)", code):
            if not name.startswith("streamlib_"):
                assert name in known, f"{page.name}: {code}"
        for variable in re.findall(r"\bSTREAMLIB_([A-Z_]*[A-Z])(?!\w|\.\.)", code):
            if variable not in ("DEBUG", "LOG_LEVEL"):
                check_setting(variable)


ARGUMENTS = {
    # of functions and attributes, and of Kafka's topics, that end like settings
    *("timestamp_ms", "first_ms", "last_ms", "size_ms", "start_ms", "end_ms", "took_ms", "stream_time_ms"),
    *("system_time_ms", "now_ms", "earliest_end_ms", "latest_start_ms", "expires_at_ms", "down_ms"),
    *("from_ms", "to_ms"),  # of requests to a worker
    "grace_ms",  # of Quix Streams
}


@pytest.mark.parametrize("block", [each for each in ALL if each.language == "mermaid"], ids=lambda block: block.where)
def test_diagrams_have_nothing_that_mermaid_stumbles_over(block: Block) -> None:
    """A semicolon ends a statement, and so does `end` wherever it stands."""
    lines = [line.strip() for line in block.code.strip().splitlines()]
    assert lines[0].split()[0] in ("flowchart", "sequenceDiagram", "gantt")
    assert not [line for line in lines if ";" in line or (line != "end" and re.search(r"\bend\b", line))]
    assert lines.count("end") == sum(line.startswith("subgraph") for line in lines)


def test_the_readme_is_found() -> None:
    assert README in pages()
    assert len(ALL) > 50
