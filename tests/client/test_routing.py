"""What calls tell a proxy before several servers."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from google.protobuf import json_format

from sdgrpc.client import AsyncClient, Client, SdgrpcServerError
from sdgrpc.client.routing import routing
from sdgrpc.v1 import catalog_pb2, diffusion_pb2, jobs_pb2

CASES = json.loads((Path(__file__).parents[1] / "contract/routing.json").read_text("utf-8"))
NAMES = ("x-sdgrpc-lora-set", "x-sdgrpc-job")
POSTCARD = {"x-sdgrpc-lora-set": "0ac6d11f55877e080b950120876286d9"}
KEPT = {"x-sdgrpc-job": "0a8c7aee0f4d8b469ff98e672f783627"}
KINDS = (diffusion_pb2.GenerateRequest, diffusion_pb2.TransformRequest, diffusion_pb2.InpaintRequest)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_table_holds(case, kind: type) -> None:
    """The same ids in every language, whatever the request draws."""
    assert dict(routing(json_format.ParseDict(case["request"], kind()))) == case["metadata"]


def test_the_table_tells_sets_apart() -> None:
    """It has equal sets written differently, and different ones."""
    ids = [case["metadata"].get("x-sdgrpc-lora-set", "") for case in CASES]
    assert len(set(ids)) > 8
    assert len(set(ids)) < len(ids) - 4


def test_other_calls() -> None:
    """PrepareLoras and PlanJob go where the jobs will; all calls about a kept job go to one server."""
    loras = [diffusion_pb2.Lora(name="postcard", strength=0.75)]
    assert dict(routing(catalog_pb2.PrepareLorasRequest(loras=loras))) == POSTCARD
    drawn = diffusion_pb2.GenerateRequest(loras=loras, request_id="contract keep")
    assert dict(routing(catalog_pb2.PlanJobRequest(generate=drawn))) == POSTCARD
    assert routing(catalog_pb2.PlanJobRequest()) == ()
    assert dict(routing(jobs_pb2.AttachJobRequest(request_id="contract keep"))) == KEPT
    assert dict(routing(jobs_pb2.CancelJobRequest(request_id="contract keep"))) == KEPT
    assert routing(jobs_pb2.ListJobsRequest()) == routing(catalog_pb2.ListModelsRequest()) == ()


class Recorder(grpc.GenericRpcHandler):
    """Keeps what calls tell of where they belong, and answers nothing."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []

    def service(self, details: grpc.HandlerCallDetails) -> None:
        told = {name: value for name, value in details.invocation_metadata if name in NAMES}
        self.seen.append((details.method.rpartition("/")[2], told))


@pytest.fixture
def recorder():
    """A server that only records, and where it is."""
    kept = Recorder()
    server = grpc.server(ThreadPoolExecutor(max_workers=2), handlers=[kept])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield kept, f"127.0.0.1:{port}"
    server.stop(None).wait()


TOLD = [
    ("Generate", POSTCARD),
    ("Transform", POSTCARD),
    ("Inpaint", POSTCARD),
    ("Generate", POSTCARD | KEPT),
    ("PrepareLoras", POSTCARD),
    ("AttachJob", KEPT),
    ("CancelJob", KEPT),
    ("ListModels", {}),
]
OPTIONS = {"loras": ["postcard:0.75"]}
KEEP = {**OPTIONS, "request_id": "contract keep", "on_disconnect": "keep"}


def test_the_client_sends_it_by_itself(recorder) -> None:
    """With every call that has a place."""
    kept, target = recorder
    with Client(target) as client:
        for call in (
            lambda: client.generate("a", **OPTIONS).images(),
            lambda: client.transform("a", b"\x89PNG", **OPTIONS).images(),
            lambda: client.inpaint("a", b"\x89PNG", b"\x89PNG", **OPTIONS).images(),
            lambda: client.generate("a", **KEEP).images(),
            lambda: client.prepare_loras(["postcard:0.75"]),
            lambda: client.attach("contract keep").images(),
            lambda: client.cancel_job("contract keep"),
            client.list_models,
        ):
            with pytest.raises(SdgrpcServerError):
                call()
    assert kept.seen == TOLD


async def test_the_async_client_does_too(recorder) -> None:
    """The same calls, awaited."""
    kept, target = recorder
    async with AsyncClient(target, token="s3cret") as client:
        for call in (
            lambda: client.generate("a", **OPTIONS).images(),
            lambda: client.transform("a", b"\x89PNG", **OPTIONS).images(),
            lambda: client.inpaint("a", b"\x89PNG", b"\x89PNG", **OPTIONS).images(),
            lambda: client.generate("a", **KEEP).images(),
            lambda: client.prepare_loras(["postcard:0.75"]),
            lambda: client.attach("contract keep").images(),
            lambda: client.cancel_job("contract keep"),
            client.list_models,
        ):
            with pytest.raises(SdgrpcServerError):
                await call()
    assert kept.seen == TOLD
