"""The Go client: its tests under the race detector, its form, its stubs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.clients.conftest import RunClient, require_client, run_in
from tools.generate_clients import stale_files

pytestmark = pytest.mark.timeout(1600)


def test_its_tests_pass(run_client: RunClient) -> None:
    """Typed events, errors, both examples, and the contract's table against a real server."""
    done = run_client("go")
    assert done.returncode == 0, done.output


def test_it_is_formatted_and_vetted() -> None:
    """Neither gofmt nor go vet finds anything."""
    require_client("go")
    unformatted = run_in("go", ["gofmt", "-l", "."])
    assert (unformatted.returncode, unformatted.output) == (0, "")
    vetted = run_in("go", ["go", "vet", "./..."])
    assert vetted.returncode == 0, vetted.output


def test_its_stubs_are_fresh() -> None:
    """They are what the protos give, by the plugins that go.mod pins."""
    require_client("go")
    assert stale_files("go") == []


def test_it_asks_for_no_newer_go_than_it_needs() -> None:
    """Iterators are of Go 1.23; the compilers of the stubs, which need more, are a module of their own."""
    folder = Path(__file__).resolve().parents[2] / "clients/go"
    assert re.search(r"^go 1\.23(\.0)?$", (folder / "go.mod").read_text(), re.MULTILINE)
    assert "tool (" in (folder / "tools/go.mod").read_text()
