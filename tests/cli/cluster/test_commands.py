"""What the command line says of replicas, and does with them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from sdgrpc.testing.scripted_catalog import Catalog, scripted_catalog
from sdgrpc.v1 import cluster_pb2


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    """A server with two replicas, of which one starts."""
    with scripted_catalog() as running:
        yield running


def test_replicas_are_listed(run, catalog: Catalog) -> None:
    """A row for each, with its node and process."""
    result = run("cluster", "status", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    head, first, second = result.stdout.splitlines()
    assert head.split()[:4] == ["name", "state", "node", "process"]
    assert first.split()[:7] == ["replica-0", "ready", "10.0.0.7", "4711", "2", "1", "3"]
    assert second.split()[:2] == ["replica-1", "starting"]


def test_replicas_are_drained(run, catalog: Catalog) -> None:
    """By the name of their node; the answer is who leaves."""
    result = run("cluster", "drain", "10.0.0.7", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    assert result.stdout == "replica-0 leaves once its jobs have ended\n"
    assert catalog.asked[-1] == cluster_pb2.DrainReplicasRequest(name="10.0.0.7")


def test_replicas_are_scaled(run, catalog: Catalog) -> None:
    """To a number or a range; what is neither is refused before anybody is asked."""
    result = run("cluster", "scale", "2:6", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    assert result.stdout == "2:6 replicas from now on; there were 2\n"
    assert catalog.asked[-1] == cluster_pb2.ScaleReplicasRequest(least=2, most=6)
    wrong = run("cluster", "scale", "many", "--server", catalog.target)
    assert wrong.exit_code == 2
    assert "'many' is not N or MIN:MAX" in wrong.stderr


@pytest.mark.parametrize("command", [["status"], ["drain", "x"], ["scale", "3"]])
def test_each_prints_json(run, catalog: Catalog, command: list[str]) -> None:
    """Standard output is one document."""
    result = run("cluster", *command, "--json", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)
