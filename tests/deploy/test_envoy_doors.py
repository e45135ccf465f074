"""Envoy's own doors: TLS, and gRPC-Web with CORS."""

from __future__ import annotations

import http.client
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import grpc
import pytest
import yaml

from sdgrpc.client import Client, SdgrpcServerError, Tls
from sdgrpc.testing import draw_script, invalid_script, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.deploy.conftest import Fronted
from tests.docs.documents import blocks
from tests.support.certificates import authority, signed
from tests.support.envoy import FOLDER, program, running_envoy, until

METHOD = "/sdgrpc.v1.DiffusionService/Generate"
TYPE = "application/grpc-web+proto"
TRAILERS = 0x80
PAGE = "http://localhost:5173"


def ask(target: str, verb: str, body: bytes = b"", **headers: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection(target, timeout=30)
    connection.request(verb, METHOD, body, {name.replace("_", "-"): value for name, value in headers.items()})
    response = connection.getresponse()
    return response, response.read()


def frame(request: pb.GenerateRequest) -> bytes:
    content = request.SerializeToString()
    return struct.pack(">BI", 0, len(content)) + content


def frames(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The kind and content of each frame of an answer over gRPC-Web."""
    while body:
        kind, size = struct.unpack(">BI", body[:5])
        yield kind, body[5 : 5 + size]
        body = body[5 + size :]


def test_a_browser_draws(fronted: Fronted) -> None:
    """Over HTTP/1.1 as gRPC-Web: each event a frame, the status the last one."""
    front = fronted(draw_script(2))
    response, body = ask(
        front.envoy.target, "POST", frame(pb.GenerateRequest(prompt="a")), content_type=TYPE, origin=PAGE
    )
    *events, (kind, trailers) = frames(body)
    assert [pb.JobEvent.FromString(content).WhichOneof("event") for _, content in events] == [
        *("accepted", "prepared", "progress", "progress", "image", "finished")
    ]
    assert (kind, b"grpc-status:0" in trailers) == (TRAILERS, True)
    assert response.headers["access-control-allow-origin"] == PAGE
    exposed = {name.strip() for name in response.headers["access-control-expose-headers"].split(",")}
    assert exposed == {"grpc-status", "grpc-message", "grpc-status-details-bin"}


def test_a_browser_is_told_what_is_wrong(fronted: Fronted) -> None:
    """A refusal's status and details are headers that a page's script may read."""
    front = fronted(invalid_script())
    response, _ = ask(front.envoy.target, "POST", frame(pb.GenerateRequest()), content_type=TYPE, origin=PAGE)
    assert response.status == 200
    assert response.headers["grpc-status"] == "3"
    assert response.headers["grpc-status-details-bin"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [(PAGE, PAGE), ("https://127.0.0.1", "https://127.0.0.1"), ("https://evil.example", None)],
)
def test_only_named_pages_may_call(fronted: Fronted, origin: str, allowed: str | None) -> None:
    """A browser asks first, and is told which headers the page may send; others get no permission."""
    front = fronted(draw_script(1))
    asked = "content-type,x-grpc-web,x-user-agent,grpc-timeout,authorization,x-sdgrpc-lora-set,x-sdgrpc-job"
    response, _ = ask(
        front.envoy.target,
        "OPTIONS",
        origin=origin,
        access_control_request_method="POST",
        access_control_request_headers=asked,
    )
    assert response.headers["access-control-allow-origin"] == allowed
    if allowed:
        assert response.headers["access-control-allow-methods"] == "POST"
        assert response.headers["access-control-max-age"] == "86400"
        named = {name.strip() for name in response.headers["access-control-allow-headers"].split(",")}
        assert set(asked.split(",")) == named
    assert front.counts() == [0]


def put_by_renaming(tls: Path, pair: Mapping[str, bytes]) -> None:
    """As the README says."""
    for place, content in pair.items():
        beside = tls / f"{place}.new"
        beside.write_bytes(content)
        beside.rename(tls / place)


def put_as_kubernetes_does(tls: Path, pair: Mapping[str, bytes]) -> None:
    """A folder that a link in the folder leads to is exchanged; the files are links through it."""
    folder = Path(tempfile.mkdtemp(dir=tls, prefix="..20"))
    for place, content in pair.items():
        (folder / place).write_bytes(content)
        if not (tls / place).is_symlink():
            (tls / place).symlink_to(Path("..data", place))
    (tls / "..new").symlink_to(folder.name)
    (tls / "..new").rename(tls / "..data")


@pytest.mark.parametrize("put", [put_by_renaming, put_as_kubernetes_does])
def test_tls_at_the_door_and_a_renewed_certificate(
    tmp_path: Path, put: Callable[[Path, Mapping[str, bytes]], None]
) -> None:
    """envoy-tls.yaml; a certificate that is put into place counts from the next connection on."""
    program()
    for name in ("ca", "next"):
        authority(tmp_path, name)
        signed(tmp_path, f"by-{name}", name)
    tls = tmp_path / "tls"
    tls.mkdir()

    def pair(name: str) -> dict[str, bytes]:
        files = {"tls.crt": f"by-{name}.pem", "tls.key": f"by-{name}.key"}
        return {place: (tmp_path / file).read_bytes() for place, file in files.items()}

    put(tls, pair("ca"))
    with scripted_server(draw_script(1)) as server:
        server.serve()
        with running_envoy(tmp_path, [server.target], "envoy-tls.yaml") as envoy:

            def draws(ca: str) -> bool:
                place = f"localhost:{envoy.target.rpartition(':')[2]}"
                trust = Tls(ca=tmp_path / f"{ca}.pem")
                options = [("grpc.use_local_subchannel_pool", 1)]
                with Client(place, tls=trust, options=options) as client:
                    try:
                        return bool(client.generate("a", timeout=10).images())
                    except SdgrpcServerError:  # it is not trusted
                        return False

            assert draws("ca")
            put(tls, pair("next"))
            until(lambda: draws("next"))
            assert not draws("ca")


def test_servers_with_tls(tmp_path: Path) -> None:
    """What the README adds to servers.yaml reaches servers that ask for TLS, and no others."""
    program()
    authority(tmp_path)
    signed(tmp_path, "server")
    (text,) = (block for block in blocks(FOLDER / "README.md", "yaml") if "UpstreamTlsContext" in block)
    added = yaml.safe_load(text)
    (tmp_path / "tls").mkdir()
    (tmp_path / "tls/ca.crt").write_bytes((tmp_path / "ca.pem").read_bytes())
    pair = ((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())
    with scripted_server(draw_script(1), grpc.ssl_server_credentials([pair])) as server:
        server.serve()
        change = {"change": lambda cluster: cluster.update(added)}
        with running_envoy(tmp_path, [server.target], **change) as envoy, Client(envoy.target) as client:
            assert client.generate("a").images()
