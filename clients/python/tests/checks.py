"""What must hold for the events of a finished job, and for a failure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb

Expect = Mapping[str, Any]
DETAILS = (
    error_details_pb2.ErrorInfo,
    error_details_pb2.BadRequest,
    error_details_pb2.ResourceInfo,
    error_details_pb2.RetryInfo,
)


def check_events(events: Sequence[pb.JobEvent], expect: Expect) -> list[pb.GeneratedImage]:
    """Check the grammar and the table; return the images by index."""
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds[:2] == ["accepted", "prepared"]
    assert kinds[-1] == "finished"
    assert set(kinds[2:-1]) <= {"progress", "image"}
    assert [event.sequence for event in events] == list(range(len(events)))
    ids = {event.request_id for event in events}
    assert len(ids) == 1
    assert "" not in ids
    assert ids == {expect.get("request_id", *ids)}
    accepted, prepared = events[0].accepted, events[1].prepared
    steps = [event.progress for event in events if event.WhichOneof("event") == "progress"]
    images = [event.image for event in events if event.WhichOneof("event") == "image"]
    images.sort(key=lambda image: image.index)
    check_accepted(accepted, expect)
    assert [step.step for step in steps] == list(range(1, accepted.step_count + 1))
    assert {step.step_count for step in steps} <= {accepted.step_count}
    check_images(images, accepted, expect)
    check_loras(prepared, expect.get("loras", []))
    check_previews(steps, accepted, expect.get("previews"))
    return images


def check_accepted(accepted: pb.Accepted, expect: Expect) -> None:
    """Model, size, steps, seed, and what there are warnings of."""
    for name in ("model", "step_count", "width", "height"):
        assert getattr(accepted, name) == expect.get(name, getattr(accepted, name))
    assert [warning.partition(":")[0] for warning in accepted.warnings] == expect.get("warnings", [])
    second = accepted.second_pass
    assert accepted.HasField("second_pass") == ("second_pass" in expect)
    for name, value in expect.get("second_pass", {}).items():
        assert getattr(second, name) == value
    if "seeds" in expect:
        assert accepted.sampling.seed == expect["seeds"][0]


def check_images(images: Sequence[pb.GeneratedImage], accepted: pb.Accepted, expect: Expect) -> None:
    """Every image once, of the size that was accepted, of the seeds and the type that are expected."""
    assert [image.index for image in images] == list(range(accepted.sampling.image_count))
    for image in images:
        size = accepted.second_pass if accepted.HasField("second_pass") else accepted
        assert (image.image.width, image.image.height) == (size.width, size.height)
        assert image.image.media_type == expect.get("media_type", image.image.media_type)
        assert image.image.data
    assert [image.seed for image in images] == expect.get("seeds", [image.seed for image in images])
    strengths = [image.lora_strength for image in images if image.HasField("lora_strength")]
    assert strengths == expect.get("lora_strengths", [])


def check_loras(prepared: pb.Prepared, expected: Sequence[Mapping[str, Any]]) -> None:
    """A report for each LoRA, in order, and a set's id if there is any."""
    assert bool(prepared.lora_set_id) == bool(expected)
    for lora, told in zip(prepared.loras, expected, strict=True):
        check_lora(lora, told)
        assert lora.modules


def check_lora(lora: pb.LoraReport | catalog_pb2.PlannedLora, told: Mapping[str, Any]) -> None:
    """What a report and a plan have in common."""
    for name in ("name", "strength", "text_encoder_strength"):
        assert getattr(lora, name) == told[name]
    steps = [[each.first, each.last] for each in lora.steps]
    assert steps == told.get("steps", steps)
    assert len(lora.sha256) == 64


def check_plan(plan: catalog_pb2.PlanJobResponse, expect: Expect) -> None:
    """What would be accepted, its steps and LoRAs."""
    check_accepted(plan.accepted, expect)
    assert (plan.unet_steps, plan.guided_steps) == (expect["unet_steps"], expect["guided_steps"])
    for lora, told in zip(plan.loras, expect.get("loras", []), strict=True):
        check_lora(lora, told)
        assert not lora.refusal


def check_upscaled(events: Sequence[pb.UpscaleEvent], expect: Expect) -> pb.Image:
    """Check the grammar and the table of an upscaled picture, and return it."""
    kinds = [event.WhichOneof("event") for event in events]
    assert kinds == ["accepted", *["progress"] * expect["tile_count"], "image"]
    assert [event.sequence for event in events] == list(range(len(events)))
    ids = {event.request_id for event in events}
    assert ids == {expect.get("request_id", *ids)} - {""}
    accepted, image = events[0].accepted, events[-1].image
    for name in ("upscaler", "width", "height", "tile_count"):
        assert getattr(accepted, name) == expect[name]
    tiles = [(event.progress.tile, event.progress.tile_count) for event in events[1:-1]]
    assert tiles == [(tile, expect["tile_count"]) for tile in range(1, expect["tile_count"] + 1)]
    assert (image.width, image.height) == (expect["width"], expect["height"])
    assert image.media_type == expect["media_type"]
    assert image.data
    return image


def check_embeddings(found: Sequence[catalog_pb2.Embedding], expected: Sequence[Mapping[str, Any]]) -> None:
    """Every learned word, in order."""
    names = ("name", "base", "vector_count", "fits")
    assert [{name: getattr(word, name) for name in names} for word in found] == expected
    for word in found:
        assert len(word.sha256) == 64
        assert bool(word.refusal) != word.fits


def check_previews(
    steps: Sequence[pb.Progress], accepted: pb.Accepted, expected: Mapping[str, Any] | None
) -> None:
    """Only with the steps expected, with the last of them for sure, one per image."""
    shown = [step for step in steps if step.previews]
    if expected is None:
        assert not shown
        return
    assert {step.step for step in shown} <= set(expected["steps"])
    assert shown[-1].step == expected["steps"][-1]
    for step in shown:
        indices = [preview.image_index for preview in step.previews]
        assert indices == list(range(accepted.sampling.image_count))
        for preview in step.previews:
            assert preview.WhichOneof("content") == expected["content"]
            check_preview(preview, accepted)


def check_preview(preview: pb.Preview, accepted: pb.Accepted) -> None:
    """A latent has the image's size over 8 and all its values; a picture has data."""
    latent = preview.latent
    if preview.WhichOneof("content") == "picture":
        assert preview.picture.data
        return
    assert (latent.width, latent.height) == (accepted.width // 8, accepted.height // 8)
    assert len(latent.data) == 2 * latent.channels * latent.height * latent.width


def details_of(error: grpc.RpcError) -> dict[str, Any]:
    """The details of a failure by their names."""
    status = rpc_status.from_call(error)
    found = {}
    for packed in status.details if status else ():
        for kind in DETAILS:
            detail = kind()
            if packed.Unpack(detail):
                found[kind.DESCRIPTOR.name] = detail
    return found


def check_failure(error: grpc.RpcError | None, expect: Expect) -> None:
    """Compare an error and all of its details."""
    assert error is not None
    assert error.code().name == expect["outcome"]
    assert error.details()
    details = details_of(error)
    present = {
        "ErrorInfo": "reason",
        "BadRequest": "violations",
        "ResourceInfo": "resource",
        "RetryInfo": "retry",
    }
    assert set(details) == {kind for kind, key in present.items() if key in expect}
    if info := details.get("ErrorInfo"):
        assert (info.domain, info.reason) == ("sdgrpc", expect["reason"])
        assert expect.get("metadata", {}).items() <= dict(info.metadata).items()
    if bad := details.get("BadRequest"):
        assert {each.field for each in bad.field_violations} == set(expect["violations"])
        assert all(each.description for each in bad.field_violations)
    if resource := details.get("ResourceInfo"):
        named = {"type": resource.resource_type, "name": resource.resource_name}
        assert named == expect["resource"]
    if retry := details.get("RetryInfo"):
        assert retry.retry_delay.ToTimedelta().total_seconds() > 0
