"""The catalog of a real server: what it has, what it is brought, how it is."""

from __future__ import annotations

import hashlib
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import catalog_pb2_grpc, diffusion_pb2, diffusion_pb2_grpc
from tests.support.assets import LORAS
from tests.support.server import ServerProcess, of_one_engine, running_server

LIMIT = 1 << 20
SEPIA = (LORAS / "sepia.safetensors").read_bytes()
CHUNK = 1 << 16


@dataclass(frozen=True)
class Uploading:
    """A server that takes uploads, whose own folder has one LoRA."""

    server: ServerProcess
    folder: Path
    catalog: catalog_pb2_grpc.CatalogServiceStub
    diffusion: diffusion_pb2_grpc.DiffusionServiceStub

    def files(self) -> set[str]:
        """The names of what the upload folder holds, beside its books."""
        return {path.name for path in self.folder.iterdir()} - {".lock", "names.json"}


@pytest.fixture(scope="module")
def uploading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Uploading]:
    """The server, with `postcard` as its own file."""
    tmp = tmp_path_factory.mktemp("uploading")
    (tmp / "loras").mkdir()
    shutil.copy(LORAS / "postcard.safetensors", tmp / "loras")
    flags = ["--lora-dir", tmp / "loras", "--upload-dir", tmp / "uploads", "--max-upload-bytes", LIMIT]
    with (
        running_server(tmp / "log", *map(str, flags)) as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        yield Uploading(
            server,
            tmp / "uploads",
            catalog_pb2_grpc.CatalogServiceStub(channel),
            diffusion_pb2_grpc.DiffusionServiceStub(channel),
        )


def hash_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def parts(content: bytes, name: str, **changes) -> Iterator[pb.UploadLoraRequest]:
    """The messages of an upload; `changes` are lies in its header."""
    values = {"name": name, "sha256": hash_of(content), "size_bytes": len(content), **changes}
    yield pb.UploadLoraRequest(header=pb.UploadLoraHeader(**values))
    for start in range(0, len(content), CHUNK):
        yield pb.UploadLoraRequest(chunk=content[start : start + CHUNK])


def request(lora: diffusion_pb2.Lora, *, steps: int = 1, **changes) -> diffusion_pb2.GenerateRequest:
    sampling = diffusion_pb2.Sampling(steps=steps, seed=3)
    return diffusion_pb2.GenerateRequest(prompt="a red star", loras=[lora], sampling=sampling, **changes)


def reason_of(error: grpc.RpcError) -> str:
    """The reason that the failure's ErrorInfo gives."""
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(error)
    assert any(detail.Unpack(info) for detail in status.details if detail.Is(info.DESCRIPTOR))
    return info.reason


@of_one_engine
def test_an_upload_can_be_used_by_name_and_by_hash(uploading: Uploading) -> None:
    """It is listed, described, and drawn with; both ways mean one fused set."""
    sent = uploading.catalog.UploadLora(parts(SEPIA, "my sepia.safetensors"))
    assert (sent.lora.name, sent.lora.sha256, sent.existed) == ("my sepia", hash_of(SEPIA), False)
    assert (sent.lora.base, sent.lora.fits, sent.lora.rank_max) == ("embedded", True, 4)
    again = uploading.catalog.UploadLora(parts(SEPIA, "other name"))
    assert (again.lora.name, again.existed) == ("other name", True)
    listed = {file.name for file in uploading.catalog.ListLoras(pb.ListLorasRequest()).loras}
    assert {"postcard", "my sepia", "other name"} <= listed
    sources = [{"name": "my sepia"}, {"sha256": hash_of(SEPIA)}, {"name": "other name.safetensors"}]
    sets = set()
    for source in sources:
        events = list(uploading.diffusion.Generate(request(diffusion_pb2.Lora(**source))))
        assert events[-1].HasField("finished")
        sets.add(events[1].prepared.lora_set_id)
    assert len(sets) == 1
    described = uploading.catalog.GetLora(pb.GetLoraRequest(sha256=hash_of(SEPIA), include_modules=True))
    assert described.module_count == len(described.modules) > 0
    assert f"{hash_of(SEPIA)}.safetensors" in uploading.files()


def test_pages_and_filters(uploading: Uploading) -> None:
    """Page by page, everything is seen once; a base that no file is for has none."""
    uploading.catalog.UploadLora(parts(SEPIA, "paged"))
    names, token = [], ""
    while True:
        page = uploading.catalog.ListLoras(pb.ListLorasRequest(page_size=1, page_token=token))
        names += [file.name for file in page.loras]
        token = page.next_page_token
        if not token:
            break
    assert names == sorted(set(names))
    assert {"paged", "postcard"} <= set(names)
    assert not uploading.catalog.ListLoras(pb.ListLorasRequest(base="sdxl")).loras
    assert len(uploading.catalog.ListLoras(pb.ListLorasRequest(fitting_only=True)).loras) == len(names)


@pytest.mark.parametrize(
    ("content", "changes", "code"),
    [
        (b"no LoRA" * 9, {}, grpc.StatusCode.FAILED_PRECONDITION),
        (SEPIA[:-1], {}, grpc.StatusCode.FAILED_PRECONDITION),
        (b"x" * 99, {"sha256": "0" * 64}, grpc.StatusCode.INVALID_ARGUMENT),
        (b"x" * 99, {"size_bytes": 98}, grpc.StatusCode.INVALID_ARGUMENT),
        (b"x" * 99, {"size_bytes": 100}, grpc.StatusCode.INVALID_ARGUMENT),
        (b"x" * 99, {"size_bytes": LIMIT + 1}, grpc.StatusCode.INVALID_ARGUMENT),
        (b"x" * 99, {"name": "../escape"}, grpc.StatusCode.INVALID_ARGUMENT),
        (b"x" * 99, {"name": "postcard"}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_bad_uploads_leave_nothing(uploading: Uploading, content: bytes, changes: dict, code) -> None:
    """No LoRA, half of one, lies about it, too much of it, or a name that leads away or is taken."""
    before = uploading.files()
    with pytest.raises(grpc.RpcError) as caught:
        uploading.catalog.UploadLora(parts(content, **{"name": "bad", **changes}))
    assert caught.value.code() is code, caught.value
    assert uploading.files() == before


def test_an_interrupted_upload_leaves_nothing(uploading: Uploading) -> None:
    """A deadline passes in the middle of it."""
    stop = threading.Event()
    content = SEPIA + b"x"

    def stuck() -> Iterator[pb.UploadLoraRequest]:
        messages = parts(content, "stuck")
        yield next(messages)
        yield next(messages)
        stop.wait(60)

    before = uploading.files()
    with pytest.raises(grpc.RpcError) as caught:
        uploading.catalog.UploadLora(stuck(), timeout=1.0)
    stop.set()
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    wait = threading.Event()
    for _ in range(600):  # the server hears of it a moment later than the client
        if uploading.files() == before:
            break
        wait.wait(0.1)
    assert uploading.files() == before


def test_a_prepared_set_is_there_for_the_job(uploading: Uploading) -> None:
    """And the status tells of it; `in_use` while a job holds it."""
    lora = diffusion_pb2.Lora(name="postcard", strength=0.25)
    ready = uploading.catalog.PrepareLoras(pb.PrepareLorasRequest(loras=[lora])).prepared
    assert (ready.lora_set_cached, ready.loras[0].strength) == (False, 0.25)
    watch = uploading.catalog.WatchStatus(pb.WatchStatusRequest(min_interval=Duration(nanos=1)), timeout=120)
    held = {each.lora_set_id: each for each in next(watch).lora_sets}
    assert held[ready.lora_set_id].model == "embedded"
    assert held[ready.lora_set_id].loras[0].strength == 0.25
    job = uploading.diffusion.Generate(request(lora, steps=150))
    next(job)
    assert next(job).prepared.lora_set_cached
    for status in watch:
        if any(each.in_use for each in status.lora_sets if each.lora_set_id == ready.lora_set_id):
            assert status.running == 1
            break
    job.cancel()
    assert any(status.running == 0 for status in watch)
    watch.cancel()


def test_models_say_how_their_latents_look(uploading: Uploading) -> None:
    """Three factors for each channel."""
    (model,) = uploading.catalog.ListModels(pb.ListModelsRequest()).models
    assert (model.name, model.base, model.resident) == ("embedded", "embedded", True)
    assert len(model.latent_format.rgb_factors) == 3 * model.latent_format.channels
    assert model.size_bytes > 0


def test_uploads_are_off_by_default_and_watches_end_with_the_server(tmp_path: Path) -> None:
    """The refusal says how to allow them; the last report before the end says that the server leaves."""
    with (
        running_server(tmp_path / "log") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        with pytest.raises(grpc.RpcError) as caught:
            catalog.UploadLora(parts(b"x" * 99, "new"))
        assert reason_of(caught.value) == "UPLOADS_OFF"
        watch = catalog.WatchStatus(pb.WatchStatusRequest(), timeout=120)
        assert next(watch).ready
        server.signal(signal.SIGTERM)
        told = []
        with pytest.raises(grpc.RpcError) as caught:
            for status in watch:
                told.append(status.ready)  # noqa: PERF401 - the watch ends by raising
        assert told[-1] is False
        assert reason_of(caught.value) == "DRAINING"
        assert server.wait() == 0
