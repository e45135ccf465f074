"""Which servers Envoy leaves out by what it sees of calls, where health does not tell it."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest
from google.rpc import code_pb2

from sdgrpc.client import Client, SdgrpcServerError
from sdgrpc.testing import draw_script, fail_script, scripted_server
from tests.deploy.conftest import Fronted
from tests.support.envoy import running_envoy

FEW = (
    200  # jobs of as many sets: that one server's share of them is less than three has no chance worth naming
)
EJECTED = "cluster.sdgrpc.outlier_detection.ejections_enforced_total"


def unasked(cluster: dict[str, Any]) -> None:
    """Take the questions for health away, so that calls alone tell."""
    del cluster["health_checks"]


def test_a_server_that_cannot_be_reached_is_left_out(tmp_path: Path) -> None:
    """After its broken connections; until then and afterwards its jobs are drawn by the other."""
    with scripted_server(draw_script(1)) as server, socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and never listens
        dead = f"127.0.0.1:{closed.getsockname()[1]}"
        servers = [server.target, dead]
        with (
            running_envoy(tmp_path, servers, change=unasked) as envoy,
            Client(envoy.target, resume_seconds=0) as client,
        ):
            sent = 0
            while envoy.healthy("sdgrpc") != {server.target}:
                assert sent < FEW
                client.generate("a", loras=[f"lora-{sent}:0.5"]).images()
                sent += 1
            assert sent >= 3
            assert len(server.requests) == sent


@pytest.mark.parametrize("code", [code_pb2.DEADLINE_EXCEEDED, code_pb2.RESOURCE_EXHAUSTED, code_pb2.INTERNAL])
def test_what_a_server_answers_never_leaves_it_out(fronted: Fronted, code: int) -> None:
    """Twice as many refusals as put a server out of use by Envoy's defaults."""
    front = fronted(fail_script(code, "no", []), fail_script(code, "no", []))
    for _ in range(10):
        with pytest.raises(SdgrpcServerError):
            front.client.generate("a", loras=["one:0.5"]).images()
    stats = {one.get("name"): one.get("value") for one in front.envoy.ask("/stats")["stats"]}
    assert stats[EJECTED] == 0
    assert front.envoy.healthy("sdgrpc") == {server.target for server in front.servers}
