"""The files of deploy/envoy fit each other, Envoy, and the settings of a server."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sdgrpc.client.routing import JOB, LORA_SET
from sdgrpc.settings import Settings
from tests.support.certificates import authority
from tests.support.envoy import FOLDER, program, read

BOOTSTRAPS = ("envoy.yaml", "envoy-tls.yaml")


@pytest.mark.parametrize("name", BOOTSTRAPS)
def test_envoy_takes_them(name: str, tmp_path: Path) -> None:
    """Without a word: nothing is deprecated either."""
    shutil.copytree(FOLDER, tmp_path, dirs_exist_ok=True)
    (tmp_path / "tls").mkdir()
    authority(tmp_path / "tls", "tls")
    command = [program(), "--mode", "validate", "-c", name, "-l", "warning"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"configuration '{name}' OK"


def test_tls_is_all_that_differs() -> None:
    """Whatever is changed in one of the two is changed in the other."""
    plain, tls = map(read, BOOTSTRAPS)
    (listener,) = tls["static_resources"]["listeners"]
    (chain,) = listener["filter_chains"]
    assert chain.pop("transport_socket")["name"] == "envoy.transport_sockets.tls"
    assert tls == plain


def test_both_clusters_have_the_same_servers() -> None:
    """And are asked and bounded alike; only the jobs that are not kept are balanced."""
    drawn, kept = read("servers.yaml")["resources"]
    for cluster in (drawn, kept):
        assert cluster.pop("name") == cluster["load_assignment"].pop("cluster_name")
    assert drawn["common_lb_config"].pop("consistent_hashing_lb_config") == {"hash_balance_factor": 150}
    assert drawn == kept


def test_routes_hash_what_clients_send() -> None:
    """By the names that they have in the client."""
    (configuration,) = read("routes.yaml")["resources"]
    (host,) = configuration["virtual_hosts"]
    hashed = [route["route"]["hash_policy"][0]["header"]["header_name"] for route in host["routes"]]
    assert hashed == [JOB, LORA_SET]
    assert host["routes"][0]["match"]["headers"][0]["name"] == JOB


def test_compose_names_what_there_is() -> None:
    """Settings, files, the servers that servers.yaml lists, and the port that Envoy listens on."""
    services = read("compose.yaml")["services"]
    servers = {name: service for name, service in services.items() if name != "envoy"}
    listed = {
        place["endpoint"]["address"]["socket_address"]["address"]
        for endpoints in read("servers.yaml")["resources"][0]["load_assignment"]["endpoints"]
        for place in endpoints["lb_endpoints"]
    }
    assert set(servers) == listed
    assert len(servers) == 2
    for service in servers.values():
        assert (FOLDER / service["build"] / "Dockerfile").is_file()
        settings = {
            name.removeprefix("SDGRPC_").lower(): value for name, value in service["environment"].items()
        }
        assert set(settings) <= set(Settings.model_fields)
        chosen = Settings(**settings)
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > chosen.drain_delay + chosen.drain_timeout + 5
    envoy = services["envoy"]
    assert set(envoy["depends_on"]) == set(servers)
    assert (FOLDER / envoy["command"].split()[-1]).is_file()
    (listener,) = read("envoy.yaml")["static_resources"]["listeners"]
    port = listener["address"]["socket_address"]["port_value"]
    assert envoy["ports"] == [f"127.0.0.1:{port}:{port}"]
