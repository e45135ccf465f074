"""The catalog's calls, with a fake engine behind them."""

from __future__ import annotations

import hashlib

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from sdgrpc.errors import Draining
from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import diffusion_pb2
from tests.support.api import details_of, events_of, generate, running_api, until_running, violations_of
from tests.support.engine import FakeEngine, make_model

CONTENT = b"a file" * 1000
HASH = hashlib.sha256(CONTENT).hexdigest()


async def error_of(call) -> grpc.aio.AioRpcError:
    """How a call with one answer fails."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def parts(*, content: bytes = CONTENT, **changes) -> list[pb.UploadLoraRequest]:
    """A header and two chunks."""
    values = {"name": "new", "sha256": HASH, "size_bytes": len(content), **changes}
    half = len(content) // 2
    return [
        pb.UploadLoraRequest(header=pb.UploadLoraHeader(**values)),
        pb.UploadLoraRequest(chunk=content[:half]),
        pb.UploadLoraRequest(chunk=content[half:]),
    ]


async def test_models_are_listed_with_their_defaults() -> None:
    """The default first, with the factors that make pictures of latents."""
    factors = ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (0.7, 0.8, 0.9), (1.0, 1.1, 1.2))
    models = (make_model(latent_rgb_factors=factors), make_model(name="other", is_inpainting=True))
    async with running_api(FakeEngine(models=models)) as api:
        first, other = (await api.catalog.ListModels(pb.ListModelsRequest())).models
    assert (first.name, first.base, first.dtype, first.resident) == ("fake", "sd15", "float32", True)
    assert (first.width, first.sampling.steps, first.sampling.scheduler) == (
        64,
        4,
        diffusion_pb2.SCHEDULER_EULER,
    )
    assert list(first.latent_format.rgb_factors) == pytest.approx([n / 10 for n in range(1, 13)])
    assert (first.latent_format.channels, first.latent_format.scale_factor) == (4, 8)
    assert (other.name, other.inpainting) == ("other", True)


async def test_pages_survive_files_that_come_and_go() -> None:
    """The next page begins after the last name, whether or not that file is still there."""
    async with running_api(FakeEngine(loras=("a", "c", "e", "g"))) as api:
        first = await api.catalog.ListLoras(pb.ListLorasRequest(page_size=2))
        assert [file.name for file in first.loras] == ["a", "c"]
        del api.engine.catalog.files["c"]
        api.engine.catalog.files["b"] = api.engine.catalog.files["a"]
        request = pb.ListLorasRequest(page_size=2, page_token=first.next_page_token)
        second = await api.catalog.ListLoras(request)
        assert [file.name for file in second.loras] == ["e", "g"]
        assert second.next_page_token == ""


@pytest.mark.parametrize("token", ["nonsense", "e30=", "W10=", "WzEsMl0=", "ä"])
async def test_unknown_page_tokens_are_refused(token: str) -> None:
    """By the field's name, whatever they hold."""
    async with running_api(FakeEngine()) as api:
        error = await error_of(api.catalog.ListLoras(pb.ListLorasRequest(page_token=token)))
    assert list(violations_of(error)) == ["page_token"]


async def test_a_page_token_belongs_to_its_list() -> None:
    """Other filters need a list of their own."""
    async with running_api(FakeEngine()) as api:
        first = await api.catalog.ListLoras(pb.ListLorasRequest(page_size=1))
        request = pb.ListLorasRequest(page_token=first.next_page_token, fitting_only=True)
        error = await error_of(api.catalog.ListLoras(request))
    assert "must stay the same" in violations_of(error)["page_token"]


async def test_every_violation_of_a_list_is_told() -> None:
    """All at once, as in the other service."""
    async with running_api(FakeEngine()) as api:
        request = pb.ListLorasRequest(page_size=1001, base="sd3", model="\n")
        error = await error_of(api.catalog.ListLoras(request))
    assert set(violations_of(error)) == {"page_size", "base", "model"}


async def test_unknown_models_and_loras_are_not_found() -> None:
    """With ResourceInfo."""
    async with running_api(FakeEngine()) as api:
        error = await error_of(api.catalog.ListLoras(pb.ListLorasRequest(model="none")))
        assert details_of(error)["ErrorInfo"].reason == "MODEL_NOT_FOUND"
        error = await error_of(api.catalog.GetLora(pb.GetLoraRequest(name="none")))
        assert error.code() is grpc.StatusCode.NOT_FOUND
        assert details_of(error)["ResourceInfo"].resource_name == "none"
        error = await error_of(api.catalog.GetLora(pb.GetLoraRequest()))
        assert "source" in violations_of(error)


async def test_a_file_is_described_with_modules_if_asked() -> None:
    """Numbers that a file does not give are unset; text that UTF-8 cannot hold is replaced."""
    async with running_api(FakeEngine()) as api:
        plain = await api.catalog.GetLora(pb.GetLoraRequest(name="inks"))
        full = await api.catalog.GetLora(pb.GetLoraRequest(name="inks", include_modules=True))
    assert (plain.lora.name, plain.tensor_count, len(plain.modules)) == ("inks", 2, 0)
    assert (plain.unmatched_tensors, list(plain.unmatched_examples)) == (1, ["a.b"])
    assert plain.metadata["note"] == "lone ?"
    assert plain.lora.modified.ToNanoseconds() == 1_700_000_000_500_000_000
    (module,) = full.modules
    assert (module.HasField("alpha"), module.HasField("delta_norm")) == (False, True)


async def test_an_upload_arrives_whole() -> None:
    """And is described in the answer."""
    async with running_api(FakeEngine()) as api:
        answer = await api.catalog.UploadLora(iter(parts(name="new.safetensors")))
        (upload,) = api.engine.catalog.uploads
    assert (upload.data, upload.committed) == (CONTENT, True)
    assert (answer.lora.name, answer.existed) == ("new", False)


async def test_known_content_is_answered_before_the_chunks() -> None:
    """The stream of a client that has not sent them is still open then."""
    async with running_api(FakeEngine()) as api:
        known = api.engine.catalog.files["inks"].sha256
        call = api.catalog.UploadLora()
        await call.write(parts(sha256=known)[0])
        answer = await call
    assert answer.existed


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": ""}, "header.name"),
        ({"name": "../up"}, "header.name"),
        ({"name": "a/b"}, "header.name"),
        ({"name": ".."}, "header.name"),
        ({"name": ".safetensors"}, "header.name"),
        ({"name": "a\x00"}, "header.name"),
        ({"name": " a"}, "header.name"),
        ({"name": "a" * 201}, "header.name"),
        ({"sha256": "abc"}, "header.sha256"),
        ({"sha256": ""}, "header.sha256"),
        ({"size_bytes": 0}, "header.size_bytes"),
        ({"size_bytes": -1}, "header.size_bytes"),
        ({"size_bytes": 1 << 40}, "header.size_bytes"),
    ],
)
async def test_bad_headers_are_refused(changes: dict[str, object], field: str) -> None:
    """Before anything is opened."""
    async with running_api(FakeEngine()) as api:
        error = await error_of(api.catalog.UploadLora(iter(parts(**changes))))
        assert list(violations_of(error)) == [field]
        assert not api.engine.catalog.uploads


async def test_the_header_comes_first_and_once() -> None:
    """Chunks without one, two of them, and no message at all."""
    header, *chunks = parts()
    async with running_api(FakeEngine()) as api:
        for stream in (chunks, [], [pb.UploadLoraRequest()]):
            error = await error_of(api.catalog.UploadLora(iter(stream)))
            assert list(violations_of(error)) == ["header"]
        error = await error_of(api.catalog.UploadLora(iter([header, header])))
        assert list(violations_of(error)) == ["chunk"]
        assert not api.engine.catalog.uploads[0].committed


async def test_an_empty_chunk_is_refused() -> None:
    """It would cost the server work and bring nothing, as often as a client likes."""
    header, *_ = parts()
    async with running_api(FakeEngine()) as api:
        error = await error_of(api.catalog.UploadLora(iter([header, pb.UploadLoraRequest(chunk=b"")])))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert violations_of(error) == {"chunk": "is empty; leave it out"}
        await api.engine.catalog.uploads[0].ended.wait()
        assert not api.engine.catalog.uploads[0].committed


async def test_a_cancelled_upload_is_aborted() -> None:
    """The engine is told, so that nothing stays."""
    async with running_api(FakeEngine()) as api:
        call = api.catalog.UploadLora()
        await call.write(parts()[0])
        await api.engine.catalog.opened.wait()
        call.cancel()
        (upload,) = api.engine.catalog.uploads
        await upload.ended.wait()
        assert not upload.committed


async def test_textual_inversions_are_listed() -> None:
    """All of them, or those that fit; with what the model that was asked about says."""
    async with running_api(FakeEngine()) as api:
        found = (await api.catalog.ListEmbeddings(pb.ListEmbeddingsRequest())).embeddings
        fitting = await api.catalog.ListEmbeddings(pb.ListEmbeddingsRequest(fitting_only=True))
        error = await error_of(api.catalog.ListEmbeddings(pb.ListEmbeddingsRequest(model="nope")))
    assert [(one.name, one.fits, one.refusal) for one in found] == [
        ("face", True, ""),
        ("large", False, "it is for SDXL"),
    ]
    face = found[0]
    assert (face.base, face.vector_count, face.size_bytes) == ("sd15", 2, 3072)
    assert face.modified.ToNanoseconds() == 1_700_000_000_500_000_000
    assert list(fitting.embeddings) == [face]
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_sets_are_prepared_with_the_jobs_rules() -> None:
    """At least one LoRA, and every field of it judged."""
    lora = diffusion_pb2.Lora(name="inks", strength=0.5)
    async with running_api(FakeEngine()) as api:
        answer = await api.catalog.PrepareLoras(pb.PrepareLorasRequest(loras=[lora]))
        assert answer.prepared.lora_set_id == "set"
        ((model, (ref,)),) = api.engine.catalog.prepared
        assert (model, ref.name, ref.text_encoder_strength) == ("fake", "inks", 0.5)
        error = await error_of(api.catalog.PrepareLoras(pb.PrepareLorasRequest()))
        assert list(violations_of(error)) == ["loras"]
        bad = [diffusion_pb2.Lora(name="inks", strength=2), diffusion_pb2.Lora()]
        error = await error_of(api.catalog.PrepareLoras(pb.PrepareLorasRequest(loras=bad)))
        assert set(violations_of(error)) == {"loras[0].strength", "loras[1]"}
        for share in ({"start": 0.5}, {"end": 0.5}, {"strength_grid": [0, 1]}):
            some = [diffusion_pb2.Lora(name="inks", **share)]
            error = await error_of(api.catalog.PrepareLoras(pb.PrepareLorasRequest(loras=some)))
            assert list(violations_of(error)) == [f"loras[0].{next(iter(share))}"]
        lora.block_weights.values.extend([1, 0])
        error = await error_of(api.catalog.PrepareLoras(pb.PrepareLorasRequest(loras=[lora])))
        assert list(violations_of(error)) == ["loras[0].block_weights.values"]


async def test_an_unset_strength_must_be_in_the_operators_range() -> None:
    """It means 1."""
    async with running_api(FakeEngine(), lora_strength_max=0.5) as api:
        request = pb.PrepareLorasRequest(loras=[diffusion_pb2.Lora(name="inks")])
        error = await error_of(api.catalog.PrepareLoras(request))
    assert list(violations_of(error)) == ["loras[0].strength"]


async def test_the_status_is_told_at_once_and_at_changes() -> None:
    """A job that begins is a change."""
    engine = FakeEngine()
    engine.gate.clear()
    async with running_api(engine) as api:
        watch = api.catalog.WatchStatus(pb.WatchStatusRequest(min_interval=Duration(nanos=1)))
        first = await watch.read()
        assert (first.ready, first.running) == (True, 0)  # type: ignore[attr-defined]
        assert [model.name for model in first.models] == ["fake"]  # type: ignore[attr-defined]
        job = api.stub.Generate(generate())
        await until_running(job)
        assert (await watch.read()).running == 1  # type: ignore[attr-defined]
        engine.gate.set()
        await events_of(job)
        while (await watch.read()).jobs_finished == 0:  # type: ignore[attr-defined]
            continue
        watch.cancel()


async def test_a_watch_ends_with_the_server() -> None:
    """After a report that says so, with a status that says why; and it keeps no server from stopping."""
    async with running_api(FakeEngine()) as api:
        watch = api.catalog.WatchStatus(pb.WatchStatusRequest())
        assert (await watch.read()).ready  # type: ignore[attr-defined]
        api.server._gate.close()
        assert not (await watch.read()).ready  # type: ignore[attr-defined]
        error = await error_of(watch.read())
        assert details_of(error)["ErrorInfo"].reason == Draining.reason


@pytest.mark.parametrize("interval", [Duration(seconds=-1), Duration(seconds=3601)])
async def test_bad_intervals_are_refused(interval: Duration) -> None:
    """By name."""
    async with running_api(FakeEngine()) as api:
        watch = api.catalog.WatchStatus(pb.WatchStatusRequest(min_interval=interval))
        error = await error_of(watch.read())
    assert list(violations_of(error)) == ["min_interval"]


async def test_a_plan_is_the_task_s_and_takes_no_place() -> None:
    """Every default is filled in as the job's would be, and nothing is submitted."""
    engine = FakeEngine()
    async with running_api(engine) as api:
        request = diffusion_pb2.GenerateRequest(prompt="a <lora:inks:0.5> cat")
        plan = await api.catalog.PlanJob(pb.PlanJobRequest(generate=request))
    assert engine.tasks == []
    assert (engine.planned[0].prompt, engine.planned[0].loras[0].strength) == ("a  cat", 0.5)
    accepted = plan.accepted
    assert (accepted.step_count, accepted.sampling.steps, accepted.width) == (4, 4, 64)
    assert accepted.sampling.scheduler == diffusion_pb2.SCHEDULER_EULER
    assert [lora.name for lora in plan.loras] == ["inks"]
    assert (plan.estimated_wait.ToMilliseconds(), plan.estimated_steps.ToMilliseconds()) == (1500, 2500)
    assert not plan.HasField("estimated_decoding")


async def test_a_plan_fails_as_its_request() -> None:
    """By the request's own fields; and one of the three requests is needed."""
    async with running_api(FakeEngine()) as api:
        bad = diffusion_pb2.TransformRequest(sampling=diffusion_pb2.Sampling(steps=-1), strength=2)
        failed = await error_of(api.catalog.PlanJob(pb.PlanJobRequest(transform=bad)))
        assert set(violations_of(failed)) == {"sampling.steps", "strength", "image"}
        failed = await error_of(api.catalog.PlanJob(pb.PlanJobRequest()))
        assert set(violations_of(failed)) == {"request"}
