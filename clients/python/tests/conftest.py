"""One server for all tests, since it takes its time to start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server import Server, running_server
from table import read_table


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """It; the last case of the contract ends it, so that test_contract.py comes last."""
    log = tmp_path_factory.mktemp("server") / "server.log"
    with running_server(log, read_table()["server"]["arguments"]) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The contract's cases last."""
    items.sort(key=lambda item: item.path.name == "test_contract.py")
