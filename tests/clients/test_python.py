"""The stub client in Python: its tests in an interpreter of their own, and its stubs."""

from __future__ import annotations

import pytest

from tests.clients.conftest import RunClient
from tools.generate_clients import stale_files

pytestmark = pytest.mark.timeout(1600)


def test_its_tests_pass(run_client: RunClient) -> None:
    """Both programs, and the contract's table against a real server."""
    done = run_client("python")
    assert done.returncode == 0, done.output


def test_its_stubs_are_fresh() -> None:
    """They are what the protos give."""
    assert stale_files("python") == []
