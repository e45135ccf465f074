"""The load tester ghz, which knows of the service only what reflection tells it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.server import running_server
from tools import ghz


@pytest.fixture(scope="module")
def binary() -> Path:
    """The real ghz, built once."""
    if shutil.which("go") is None and not ghz.BINARY.exists():
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail("SDGRPC_REQUIRE_ALL=1 needs Go, to build ghz")
        pytest.skip("ghz is built with Go, and there is no `go` on the PATH")
    return ghz.install()


@pytest.mark.timeout(1200)  # the first run builds ghz
def test_a_hundred_calls(binary: Path, tmp_path: Path) -> None:
    """Eight at a time, each with a LoRA in its prompt: all of them end with OK."""
    with running_server(tmp_path / "server.log") as server:
        report = json.loads(ghz.load(binary, server.target, calls=100, at_once=8))
    assert report["statusCodeDistribution"] == {"OK": 100}
    assert report["errorDistribution"] == {}
    assert report["count"] == 100
