"""Messages <-> domain. Requests come here after `validate` found nothing wrong with them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from sdgrpc import domain
from sdgrpc.api.loras.block_weights import block_weights
from sdgrpc.api.loras.grids import pairs
from sdgrpc.api.loras.reports import lora_report
from sdgrpc.api.loras.steps import share
from sdgrpc.api.rules import given
from sdgrpc.api.sampling.messages import sampling, sampling_message
from sdgrpc.api.sampling.second_pass import second_pass, second_pass_message
from sdgrpc.domain import ModelInfo, Picture, Task, TaskKind
from sdgrpc.domain.decimals import shortest
from sdgrpc.domain.second_pass import UNIT, in_proportion
from sdgrpc.domain.tasks import DEFAULT_LORA_STRENGTH
from sdgrpc.v1 import diffusion_pb2 as pb

Request = pb.GenerateRequest | pb.TransformRequest | pb.InpaintRequest

KINDS: Mapping[type[Request], TaskKind] = {
    pb.GenerateRequest: TaskKind.GENERATE,
    pb.TransformRequest: TaskKind.TRANSFORM,
    pb.InpaintRequest: TaskKind.INPAINT,
}
DEFAULT_STRENGTH = {TaskKind.GENERATE: 1.0, TaskKind.TRANSFORM: 0.8, TaskKind.INPAINT: 1.0}


def task(
    request: Request,
    model: ModelInfo,
    image: Picture | None,
    mask: Picture | None,
    warnings: Sequence[str] = (),
) -> Task:
    """The request with every default filled in, the seed too."""
    kind = KINDS[type(request)]
    width, height = size(request, model, image)
    sampled = sampling(request.sampling, model)
    second = None
    if isinstance(request, pb.GenerateRequest) and request.HasField("second_pass"):
        second = second_pass(request.second_pass).resolved(width, height, sampled.steps)
    longer_side = max(width, height) if second is None else max(second.width, second.height)
    return Task(
        kind=kind,
        request_id=request.request_id or uuid.uuid4().hex,
        model=model.name,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        loras=tuple(lora_ref(lora, model.base) for lora in request.loras),
        sampling=sampled,
        output=output(request.output, longer_side),
        width=width,
        height=height,
        image=image,
        mask=mask,
        strength=given(request, "strength", DEFAULT_STRENGTH[kind]),
        mask_options=_mask_options(request),
        keeps_size=kind is TaskKind.INPAINT and not (request.width or request.height),
        resize_mode=resize_mode(request),
        warnings=tuple(warnings),
        margins=margins(request),
        second_pass=second,
    )


def size(request: Request, model: ModelInfo, image: Picture | None) -> tuple[int, int]:
    """Width and height that are drawn, as the contract says for one of them or both that are 0."""
    width, height = request.width, request.height
    if image is None:
        return width or model.width, height or model.height
    if not width and not height:
        return image.width // UNIT * UNIT, image.height // UNIT * UNIT
    return width or in_proportion(height, image.width, image.height), height or in_proportion(
        width, image.height, image.width
    )


def resize_mode(request: Request) -> domain.ResizeMode:
    """How to bring the input to the size; unspecified is STRETCH, as is a request without an input."""
    if isinstance(request, pb.GenerateRequest) or request.resize_mode == pb.RESIZE_MODE_UNSPECIFIED:
        return domain.ResizeMode.STRETCH
    return domain.ResizeMode[pb.ResizeMode.Name(request.resize_mode).removeprefix("RESIZE_MODE_")]


def lora_ref(message: pb.Lora, base: str) -> domain.LoraRef:
    """One LoRA for a model; the strength on the text encoders is the other one's unless it is given."""
    weights = block_weights(message)
    grid = pairs(message)
    strength = grid[0][0] if grid else given(message, "strength", DEFAULT_LORA_STRENGTH)
    return domain.LoraRef(
        strength=strength,
        text_encoder_strength=given(message, "text_encoder_strength", strength),
        name=message.name,
        sha256=message.sha256.lower(),
        content=message.safetensors,
        strict=message.strict,
        block_weights=weights,
        block_factors=weights.factors(base),
        start=share(message, "start"),
        end=share(message, "end"),
        strength_grid=grid,
    )


def output(message: pb.Output, longer_side: int) -> domain.Output:
    """How to send images and previews, whose pictures are at most as large as the image."""
    preview = message.preview
    kind = domain.PreviewKind.NONE
    if preview.kind != pb.PREVIEW_KIND_UNSPECIFIED:
        kind = domain.PreviewKind[pb.PreviewKind.Name(preview.kind).removeprefix("PREVIEW_KIND_")]
    max_side = min(preview.max_side, longer_side)
    return domain.Output(
        media_type=message.media_type or "image/png",
        quality=message.quality or 90,
        preview=domain.PreviewOptions(kind, preview.every_n_steps or 1, max_side),
        omit_metadata=message.omit_metadata,
        decoder=domain.Decoder.TINY if message.decoder == pb.DECODER_TINY else domain.Decoder.VAE,
    )


def job_event(event: domain.Event, request_id: str, sequence: int) -> pb.JobEvent:
    """An event as it is sent."""
    field, encode = _EVENTS[type(event)]
    return pb.JobEvent(request_id=request_id, sequence=sequence, **{field: encode(event)})


def duration(seconds: float) -> Duration:
    """Seconds as a Duration, never below 0."""
    nanos = max(0, round(seconds * 1e9))
    return Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)


def _mask_options(request: Request) -> domain.MaskOptions:
    if not isinstance(request, pb.InpaintRequest):
        return domain.MaskOptions()
    options = request.mask_options
    padding = options.crop_padding if options.HasField("crop_padding") else None
    content = domain.MaskedContent.ORIGINAL
    if options.masked_content != pb.MASKED_CONTENT_UNSPECIFIED:
        name = pb.MaskedContent.Name(options.masked_content)
        content = domain.MaskedContent[name.removeprefix("MASKED_CONTENT_")]
    return domain.MaskOptions(shortest(options.blur), padding, content, options.soft, options.cover)


def margins(request: Request) -> domain.Margins:
    """What to add around the input."""
    if not isinstance(request, pb.InpaintRequest):
        return domain.Margins()
    asked = request.margins
    return domain.Margins(asked.left, asked.top, asked.right, asked.bottom)


def accepted(event: domain.Accepted) -> pb.Accepted:
    """A request that is valid, every default filled in."""
    task = event.task
    return pb.Accepted(
        queue_position=event.queue_position,
        sampling=sampling_message(task.sampling),
        width=task.width,
        height=task.height,
        model=task.model,
        step_count=task.step_count,
        warnings=event.warnings,
        second_pass=second_pass_message(task.second_pass),
    )


def prepared(event: domain.Prepared) -> pb.Prepared:
    """What a set did to the model."""
    return pb.Prepared(
        loras=map(lora_report, event.loras),
        lora_set_id=event.lora_set_id,
        lora_set_cached=event.lora_set_cached,
        fuse_duration=duration(event.fuse_seconds),
    )


def _progress(event: domain.Progress) -> pb.Progress:
    return pb.Progress(
        step=event.step,
        step_count=event.step_count,
        timestep=event.timestep,
        elapsed=duration(event.elapsed_seconds),
        remaining=duration(event.remaining_seconds),
        previews=map(_preview, event.previews),
        pass_number=event.pass_number,
    )


def _preview(preview: domain.Preview) -> pb.Preview:
    content = preview.content
    if isinstance(content, domain.EncodedImage):
        return pb.Preview(image_index=preview.image_index, picture=image(content))
    latent = pb.Latent(
        channels=content.channels, height=content.height, width=content.width, data=content.data
    )
    return pb.Preview(image_index=preview.image_index, latent=latent)


def _image_ready(event: domain.ImageReady) -> pb.GeneratedImage:
    picture = image(event.image)
    return pb.GeneratedImage(
        index=event.index, seed=event.seed, image=picture, lora_strength=event.lora_strength
    )


def image(encoded: domain.EncodedImage) -> pb.Image:
    """A picture in a file."""
    return pb.Image(
        data=encoded.data, media_type=encoded.media_type, width=encoded.width, height=encoded.height
    )


def _finished(event: domain.Finished) -> pb.Finished:
    return pb.Finished(
        queued=duration(event.queued_seconds),
        prepared=duration(event.prepared_seconds),
        denoised=duration(event.denoised_seconds),
        decoded=duration(event.decoded_seconds),
        largest_batch=event.largest_batch,
        unet_calls=event.unet_calls,
    )


_EVENTS: Mapping[type[domain.Event], tuple[str, Callable[[Any], Any]]] = {
    domain.Accepted: ("accepted", accepted),
    domain.Prepared: ("prepared", prepared),
    domain.Progress: ("progress", _progress),
    domain.ImageReady: ("image", _image_ready),
    domain.Finished: ("finished", _finished),
}
