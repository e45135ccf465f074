"""The two programs with a server on a socket that asks for a token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from server import Server, running_server, skip

FOLDER = Path(__file__).resolve().parents[1]
SECRET = "s3cret-of-python"  # noqa: S105


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows one token."""
    if os.environ.get("SDGRPC_CONTRACT_SERVER"):
        skip("the server that SDGRPC_CONTRACT_SERVER names may ask for another token")
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text(f"python-client: {SECRET}\n")
    arguments = ["--listen", f"unix:{folder}/own/s", "--token-file", str(folder / "tokens")]
    with running_server(folder / "server.log", arguments) as running:
        yield running


def run(program: str, token: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs with a token in its environment, or without."""
    environment = {name: value for name, value in os.environ.items() if name != "SDGRPC_TOKEN"}
    if token:
        environment["SDGRPC_TOKEN"] = token
    return subprocess.run(
        [sys.executable, program, *arguments],
        cwd=FOLDER,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("program", ["draw.py", "latents.py"])
def test_the_programs_send_the_token(guarded: Server, tmp_path: Path, program: str) -> None:
    """With it they draw."""
    done = run(program, SECRET, guarded.target, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("token", ["", "wrong"])
def test_without_it_they_are_refused(guarded: Server, tmp_path: Path, token: str) -> None:
    """The failure is explained, and has its reason."""
    done = run("draw.py", token, guarded.target, str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("UNAUTHENTICATED: ")
    assert 'reason: "UNAUTHENTICATED"' in done.stderr


def test_every_stub_takes_it_as_metadata(guarded: Server) -> None:
    """As the generated code has it; the refusal's details are on the error."""
    with grpc.insecure_channel(guarded.target) as channel:
        catalog, request = CatalogServiceStub(channel), catalog_pb2.ListModelsRequest()
        assert catalog.ListModels(request, metadata=[("authorization", f"Bearer {SECRET}")]).models
        with pytest.raises(grpc.RpcError) as caught:
            catalog.ListModels(request)
    info = ErrorInfo()
    rpc_status.from_call(caught.value).details[0].Unpack(info)
    assert (caught.value.code(), info.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
