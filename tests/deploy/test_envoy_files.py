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


def test_no_time_but_the_callers_ends_a_job() -> None:
    """Not on either route, nor where a job waits for its turn and says nothing for an hour."""
    for name in BOOTSTRAPS:
        (listener,) = read(name)["static_resources"]["listeners"]
        (manager,) = listener["filter_chains"][0]["filters"]
        assert manager["typed_config"]["stream_idle_timeout"] == "0s"
        assert "common_http_protocol_options" not in manager["typed_config"]
    (configuration,) = read("routes.yaml")["resources"]
    for route in configuration["virtual_hosts"][0]["routes"]:
        assert route["route"]["timeout"] == "0s"
        assert route["route"]["max_stream_duration"] == {"grpc_timeout_header_max": "0s"}
        assert "idle_timeout" not in route["route"]


def test_only_broken_connections_put_a_server_out() -> None:
    """Each of Envoy's other reasons is off, those too that two servers are not enough to try."""
    outliers = read("servers.yaml")["resources"][0]["outlier_detection"]
    enforced = {name: part for name, part in outliers.items() if name.startswith("enforcing_")}
    assert enforced.pop("enforcing_consecutive_local_origin_failure") == 100
    others = ("consecutive_5xx", "consecutive_gateway_failure", "success_rate", "local_origin_success_rate")
    assert enforced == {f"enforcing_{name}": 0 for name in others}


def test_the_readme_has_the_values() -> None:
    """What it says of bounds and windows is what the files have."""
    text = (FOLDER / "README.md").read_text("utf-8")
    cluster = read("servers.yaml")["resources"][0]
    (bounds,) = cluster["circuit_breakers"]["thresholds"]
    (options,) = cluster["typed_extension_protocol_options"].values()
    bootstrap = read("envoy.yaml")
    (monitor,) = bootstrap["overload_manager"]["resource_monitors"]
    (listener,) = bootstrap["static_resources"]["listeners"]
    (manager,) = listener["filter_chains"][0]["filters"]
    for spoken in (
        options["explicit_http_config"]["http2_protocol_options"],
        manager["typed_config"]["http2_protocol_options"],
    ):
        assert f"windows of {spoken['initial_stream_window_size'] >> 10} KiB" in text
    named = {
        "max_requests": bounds["max_requests"],
        "max_active_downstream_connections": monitor["typed_config"]["max_active_downstream_connections"],
        "hash_balance_factor": cluster["common_lb_config"]["consistent_hashing_lb_config"][
            "hash_balance_factor"
        ],
        "healthy_panic_threshold": cluster["common_lb_config"]["healthy_panic_threshold"]["value"],
        "no_traffic_interval": cluster["health_checks"][0]["no_traffic_interval"],
    }
    for name, value in named.items():
        assert f"`{name}: {value}`" in text


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
