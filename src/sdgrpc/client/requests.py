"""Keyword arguments -> request messages."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, TypedDict, TypeVar

from sdgrpc.client.drawing import parts
from sdgrpc.client.jobs.records import OnDisconnect
from sdgrpc.client.loras import LoraLike, lora_messages
from sdgrpc.client.pictures import image_bytes
from sdgrpc.domain import (
    Decoder,
    GuidanceInterval,
    Margins,
    MaskedContent,
    PreviewKind,
    PreviewOptions,
    ResizeMode,
    Scheduler,
    SecondPass,
    SigmaSpacing,
    StepReuse,
    Tiling,
    TimestepSpacing,
    Variation,
)
from sdgrpc.v1 import diffusion_pb2 as pb

if TYPE_CHECKING:
    from sdgrpc.client.pictures import ImageLike

Drawn = pb.GenerateRequest | pb.TransformRequest | pb.InpaintRequest
"""A request that draws."""

_R = TypeVar("_R", pb.GenerateRequest, pb.TransformRequest, pb.InpaintRequest)


class Options(TypedDict, total=False):
    """What all three calls take; what is left out is the server's or the model's default.

    `scheduler`, `sigma_spacing`, `timestep_spacing` and `preview` take the enums of sdgrpc.domain or their
    values ("euler", "karras", "trailing", "picture"). `width` and `height` are pixels, multiples of 8. Image
    i of `image_count` is drawn from `seed` + i. `timeout` is the job's deadline in seconds. With
    `on_disconnect` "keep" the job goes on where its call is closed, and `attach` finds it again.
    `guidance_interval` guides a part of the steps, `step_reuse` forecasts some: less work for nearly the same
    picture. `late_start` is the share of the steps that may run before the LoRAs are there. `variation` goes
    towards another seed, `tiling` ("both", "horizontal", "vertical") fits edges.
    """

    negative_prompt: str
    loras: Iterable[LoraLike]
    model: str
    steps: int
    guidance_scale: float | None
    scheduler: Scheduler | str | None
    sigma_spacing: SigmaSpacing | str | None
    timestep_spacing: TimestepSpacing | str | None
    guidance_rescale: float | None
    eta: float | None
    gamma: float | None
    guidance_interval: GuidanceInterval | None
    step_reuse: StepReuse | None
    late_start: float
    variation: Variation | None
    tiling: Tiling | str | None
    decoder: Decoder | str | None
    seed: int | None
    image_count: int
    clip_skip: int
    width: int
    height: int
    media_type: str
    quality: int
    omit_metadata: bool
    preview: PreviewOptions | PreviewKind | str | None
    request_id: str
    on_disconnect: OnDisconnect | str | None
    timeout: float | None


def generate_request(
    prompt: str, options: Options, second_pass: SecondPass | str | None = None
) -> pb.GenerateRequest:
    """Build a request.

    Raises:
        ValueError: a scheduler, spacing or preview of an unknown name, or a LoRA that cannot be read.
        TypeError: an option of an unknown name.

    """
    request = _request(pb.GenerateRequest, prompt, options)
    if second_pass is not None:
        request.second_pass.CopyFrom(parts.second_pass(second_pass))
    return request


def transform_request(
    prompt: str,
    image: ImageLike,
    strength: float | None,
    resize_mode: ResizeMode | str | None,
    options: Options,
) -> pb.TransformRequest:
    """Build a request; raises what `generate_request` and `image_bytes` raise."""
    request = _request(pb.TransformRequest, prompt, options)
    request.image.data = image_bytes(image)
    request.resize_mode = _resize_mode(resize_mode)
    if strength is not None:
        request.strength = strength
    return request


def inpaint_request(
    prompt: str,
    image: ImageLike,
    mask: ImageLike | None,
    strength: float | None,
    mask_options: pb.MaskOptions,
    resize_mode: ResizeMode | str | None,
    margins: Margins | None,
    options: Options,
) -> pb.InpaintRequest:
    """Build a request; raises what `generate_request` and `image_bytes` raise."""
    request = _request(pb.InpaintRequest, prompt, options)
    request.image.data = image_bytes(image)
    if mask is not None:
        request.mask.data = image_bytes(mask)
    if margins is not None:
        request.margins.CopyFrom(pb.Margins(**asdict(margins)))
    request.mask_options.CopyFrom(mask_options)
    request.resize_mode = _resize_mode(resize_mode)
    if strength is not None:
        request.strength = strength
    return request


def mask_message(
    blur: float,
    crop_padding: int | None,
    masked_content: MaskedContent | str | None = None,
    *,
    soft: bool = False,
    cover: bool = False,
) -> pb.MaskOptions:
    """How to use the mask, as a message."""
    content = parts.member(MaskedContent, "masked_content", masked_content)
    return pb.MaskOptions(
        blur=blur,
        crop_padding=crop_padding,
        masked_content=pb.MaskedContent.Value(f"MASKED_CONTENT_{content.name if content else 'UNSPECIFIED'}"),
        soft=soft,
        cover=cover,
    )


def _resize_mode(mode: ResizeMode | str | None) -> pb.ResizeMode.ValueType:
    member = parts.member(ResizeMode, "resize_mode", mode)
    return pb.ResizeMode.Value(f"RESIZE_MODE_{member.name if member else 'UNSPECIFIED'}")


def _request(kind: type[_R], prompt: str, options: Options) -> _R:
    if unknown := set(options) - set(Options.__annotations__):
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}")
    on_disconnect = parts.member(OnDisconnect, "on_disconnect", options.get("on_disconnect"))
    made_up = uuid.uuid4().hex if on_disconnect is OnDisconnect.KEEP else ""
    return kind(
        request_id=options.get("request_id", "") or made_up,
        on_disconnect=pb.OnDisconnect.Value(
            f"ON_DISCONNECT_{on_disconnect.name if on_disconnect else 'UNSPECIFIED'}"
        ),
        model=options.get("model", ""),
        prompt=prompt,
        negative_prompt=options.get("negative_prompt", ""),
        loras=lora_messages(options.get("loras", ())),
        sampling=_sampling(options),
        output=_output(options),
        width=options.get("width", 0),
        height=options.get("height", 0),
    )


def _sampling(options: Options) -> pb.Sampling:
    scheduler = parts.member(Scheduler, "scheduler", options.get("scheduler"))
    spacing = parts.member(SigmaSpacing, "sigma_spacing", options.get("sigma_spacing"))
    timesteps = parts.member(TimestepSpacing, "timestep_spacing", options.get("timestep_spacing"))
    return pb.Sampling(
        steps=options.get("steps", 0),
        guidance_scale=options.get("guidance_scale"),
        scheduler=pb.Scheduler.Value(f"SCHEDULER_{scheduler.name}" if scheduler else "SCHEDULER_UNSPECIFIED"),
        sigma_spacing=pb.SigmaSpacing.Value(f"SIGMA_SPACING_{spacing.name if spacing else 'UNSPECIFIED'}"),
        seed=options.get("seed"),
        image_count=options.get("image_count", 0),
        clip_skip=options.get("clip_skip", 0),
        timestep_spacing=pb.TimestepSpacing.Value(
            f"TIMESTEP_SPACING_{timesteps.name if timesteps else 'UNSPECIFIED'}"
        ),
        guidance_rescale=options.get("guidance_rescale"),
        eta=options.get("eta"),
        gamma=options.get("gamma"),
        guidance_interval=parts.interval(options.get("guidance_interval")),
        step_reuse=parts.reuse(options.get("step_reuse")),
        late_start=options.get("late_start", 0.0),
        variation=parts.variation(options.get("variation")),
        tiling=parts.tiling(options.get("tiling")),
    )


def _output(options: Options) -> pb.Output:
    decoder = parts.member(Decoder, "decoder", options.get("decoder"))
    return pb.Output(
        media_type=options.get("media_type", ""),
        quality=options.get("quality", 0),
        preview=_preview(options.get("preview")),
        omit_metadata=options.get("omit_metadata", False),
        decoder=pb.Decoder.Value(f"DECODER_{decoder.name if decoder else 'UNSPECIFIED'}"),
    )


def _preview(preview: PreviewOptions | PreviewKind | str | None) -> pb.PreviewOptions | None:
    if not isinstance(preview, PreviewOptions):
        kind = parts.member(PreviewKind, "preview", preview)
        preview = PreviewOptions(kind or PreviewKind.NONE)
    if preview.kind is PreviewKind.NONE:
        return None
    return pb.PreviewOptions(
        kind=pb.PreviewKind.Value(f"PREVIEW_KIND_{preview.kind.name}"),
        every_n_steps=preview.every_n_steps,
        max_side=preview.max_side,
    )
