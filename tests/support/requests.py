"""Random requests for property tests: valid ones, and valid ones with one field spoilt."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from hypothesis import strategies as st

from sdgrpc.domain import SUPPORTED_SPACINGS, Scheduler
from sdgrpc.domain.blocks import PRESETS
from sdgrpc.images import MEDIA_TYPES
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import png

MAX_STEPS = 6
Request = pb.GenerateRequest | pb.TransformRequest | pb.InpaintRequest
PRINTABLE = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), max_size=12)
PROMPTS = st.text(max_size=30)
SIDES = st.sampled_from([0, 64, 72, 128])
NAN = float("nan")


def maybe(strategy: st.SearchStrategy) -> st.SearchStrategy:
    """The value, or None for an unset field."""
    return st.none() | strategy


def unit() -> st.SearchStrategy[float]:
    """A float32 in [0, 1]."""
    return st.floats(0, 1, width=32)


@dataclass(frozen=True)
class Served:
    """What a server has that requests can name."""

    model: str = "fake"
    loras: tuple[str, ...] = ("inks", "dots")
    sha256: tuple[str, ...] = ("Ab" * 32,)
    text_encoder_layers: int = 12
    fewest_steps: int = 0  # 0 is the model's own number


FAKE = Served()


@st.composite
def samplings(draw: st.DrawFn, served: Served) -> pb.Sampling:
    scheduler = draw(st.sampled_from(Scheduler))
    spacing = draw(st.sampled_from(sorted(SUPPORTED_SPACINGS[scheduler], key=lambda each: each.name)))
    return pb.Sampling(
        steps=draw(st.integers(served.fewest_steps, MAX_STEPS)),
        guidance_scale=draw(maybe(st.floats(1, 100, width=32))),
        scheduler=f"SCHEDULER_{scheduler.name}",
        sigma_spacing=draw(st.sampled_from([0, f"SIGMA_SPACING_{spacing.name}"])),
        seed=draw(maybe(st.integers(0, 2**63 - 4))),
        image_count=draw(st.integers(0, 3)),
        clip_skip=draw(st.integers(0, served.text_encoder_layers - 1)),
    )


BLOCK_WEIGHTS = st.builds(pb.BlockWeights, preset=st.sampled_from(PRESETS)) | st.builds(
    pb.BlockWeights,
    blocks=st.dictionaries(
        st.sampled_from(["unet", "unet.down", "unet.mid", "text_encoder"]), unit(), min_size=1
    ),
)
"""Strengths by block that fit any model."""


def loras(served: Served) -> st.SearchStrategy[pb.Lora]:
    """LoRAs by name or hash."""
    sources = [{"name": name} for name in served.loras] + [{"sha256": sha256} for sha256 in served.sha256]
    return st.builds(
        lambda source, **values: pb.Lora(**source, **values),
        source=st.sampled_from(sources),
        strength=maybe(unit()),
        text_encoder_strength=maybe(unit()),
        block_weights=maybe(BLOCK_WEIGHTS),
        strict=st.booleans(),
    )


def outputs() -> st.SearchStrategy[pb.Output]:
    """Every format and kind of preview."""
    previews = st.builds(
        pb.PreviewOptions,
        kind=st.integers(0, 3),
        every_n_steps=st.integers(0, 4),
        max_side=st.sampled_from([0, 8, 64]),
    )
    return st.builds(
        pb.Output,
        media_type=st.sampled_from(["", *MEDIA_TYPES]),
        quality=st.integers(0, 100),
        preview=maybe(previews),
        omit_metadata=st.booleans(),
    )


def common(served: Served) -> dict[str, st.SearchStrategy]:
    """The fields that all requests have."""
    return {
        "request_id": PRINTABLE,
        "model": st.sampled_from(["", served.model]),
        "prompt": PROMPTS,
        "negative_prompt": st.text(max_size=20),
        "loras": st.lists(loras(served), max_size=3),
        "sampling": samplings(served) if served.fewest_steps else maybe(samplings(served)),
        "output": maybe(outputs()),
        "width": SIDES,
        "height": SIDES,
    }


@functools.cache
def image_of(width: int, height: int, mode: str) -> pb.Image:
    """A flat picture; the fields besides `data` are ignored."""
    return pb.Image(data=png(width, height, colour=0, mode=mode), media_type="ignored", width=-1, height=-1)


@st.composite
def valid(draw: st.DrawFn, served: Served = FAKE) -> Request:
    """A request of any kind that a server draws; of few steps and pixels."""
    kind = draw(st.sampled_from([pb.GenerateRequest, pb.TransformRequest, pb.InpaintRequest]))
    values = common(served)
    if kind is not pb.GenerateRequest:
        size = draw(st.sampled_from([(64, 64), (71, 130), (96, 64)]))
        values |= {"image": st.just(image_of(*size, "RGB")), "strength": maybe(unit())}
    if kind is pb.InpaintRequest:
        options = st.builds(
            pb.MaskOptions, blur=st.floats(0, 9, width=32), crop_padding=maybe(st.integers(0, 64))
        )
        values |= {"mask": st.just(image_of(*size, "L")), "mask_options": maybe(options)}
    return draw(st.builds(kind, **values))


# What spoils a request, by the field that the server must name. `image.` and `mask.` only fit some kinds.
SPOILERS = {
    "prompt": lambda r: setattr(r, "prompt", "x" * 4001),
    "model": lambda r: setattr(r, "model", "a\nb"),
    "request_id": lambda r: setattr(r, "request_id", "\x00"),
    "width": lambda r: setattr(r, "width", 100),
    "height": lambda r: setattr(r, "height", -64),
    "loras": lambda r: r.loras.extend([pb.Lora(name="inks")] * 20),
    "sampling.steps": lambda r: setattr(r.sampling, "steps", MAX_STEPS + 1),
    "sampling.guidance_scale": lambda r: setattr(r.sampling, "guidance_scale", NAN),
    "sampling.scheduler": lambda r: setattr(r.sampling, "scheduler", 17),
    "sampling.sigma_spacing": lambda r: setattr(r.sampling, "sigma_spacing", -1),
    "sampling.seed": lambda r: setattr(r.sampling, "seed", -1),
    "sampling.image_count": lambda r: setattr(r.sampling, "image_count", 1000),
    "sampling.clip_skip": lambda r: setattr(r.sampling, "clip_skip", -1),
    "output.media_type": lambda r: setattr(r.output, "media_type", "text/plain"),
    "output.quality": lambda r: setattr(r.output, "quality", -1),
    "output.preview.kind": lambda r: setattr(r.output.preview, "kind", 9),
    "output.preview.every_n_steps": lambda r: setattr(r.output.preview, "every_n_steps", -1),
    "output.preview.max_side": lambda r: setattr(r.output.preview, "max_side", 1 << 20),
    "image.data": lambda r: setattr(r.image, "data", r.image.data[:-30]),
    "strength": lambda r: setattr(r, "strength", 1.5),
    "mask": lambda r: r.mask.CopyFrom(image_of(200, 64, "L")),
    "mask_options.blur": lambda r: setattr(r.mask_options, "blur", NAN),
}


@st.composite
def spoilt(draw: st.DrawFn) -> tuple[Request, set[str]]:
    """A request with some fields spoilt, and their names."""
    request = draw(valid())
    known = {field.name for field in request.DESCRIPTOR.fields}
    fitting = [name for name in SPOILERS if name.partition(".")[0] in known]
    names = draw(st.sets(st.sampled_from(fitting), min_size=1, max_size=4))
    if {"image.data", "mask"} <= names:  # without an image a mask has nothing to be compared with
        names.remove("mask")
    for name in names:
        SPOILERS[name](request)
    return request, names
