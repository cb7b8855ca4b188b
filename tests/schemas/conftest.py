"""Generated classes, a registry of canned answers, and a real one."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc_tools
import pytest
from grpc_tools import protoc

from tests.schemas import apicurio
from tests.schemas.stub import Stub

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def shop_pb2(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The module that protoc makes of shop.proto."""
    folder = tmp_path_factory.mktemp("protoc")
    known = Path(grpc_tools.__file__).parent / "_proto"
    assert protoc.main(["protoc", f"-I{HERE}", f"-I{known}", f"--python_out={folder}", str(HERE / "shop.proto")]) == 0
    spec = importlib.util.spec_from_file_location("shop_pb2", folder / "shop_pb2.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub() as server:
        yield server


@pytest.fixture(scope="session")
def registry_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with apicurio.running(tmp_path_factory.mktemp("apicurio")) as url:
        yield url
