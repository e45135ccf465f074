"""A picture's text -> what draws the picture again, and what of the text could not be used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sdgrpc.domain import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    Decoder,
    GuidanceInterval,
    Margins,
    MaskedContent,
    ResizeMode,
    Scheduler,
    SecondPass,
    SigmaSpacing,
    StepReuse,
    Tiling,
    TimestepSpacing,
    Variation,
)
from sdgrpc.parameters.names import (
    AUTOMATIC,
    AUTOMATIC_SPACINGS,
    CONTENTS,
    SAMPLERS,
    SPACINGS,
    TIMESTEP_SPACINGS,
    split_sampler,
)
from sdgrpc.parameters.reading_values import Values, cut, equals, layers, number, resize_mode_of, whole
from sdgrpc.parameters.second_pass import second_pass_of
from sdgrpc.parameters.values import sections
from sdgrpc.parameters.writing import OURS, without_marks
from sdgrpc.prompting.tags import LoraTag, take_tags

HASH = re.compile(r"[0-9a-fA-F]{8,64}")


@dataclass(frozen=True, slots=True)
class PictureLora:
    """A LoRA of a picture: how strong it was, and its hashes where the text has them.

    `block_weights` is what the text has after `lbw=`.
    """

    name: str
    strength: float
    text_encoder_strength: float
    autov3: str = ""
    sha256: str = ""
    block_weights: str = ""
    start: float = 0.0
    end: float = 1.0


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a picture's text says; None or empty is what it does not say.

    `prompt` is without the tags of `loras`. `clip_skip` counts layers left out, one less than the web UI's.
    `strength` to `margins` are of pictures made of others, `second_pass` of those drawn twice. `notes`
    say what could not be used, for the user to read. `is_ours` tells whether sdgrpc drew the picture.
    """

    prompt: str
    negative_prompt: str = ""
    loras: tuple[PictureLora, ...] = ()
    steps: int | None = None
    scheduler: Scheduler | None = None
    sigma_spacing: SigmaSpacing | None = None
    timestep_spacing: TimestepSpacing | None = None
    guidance_scale: float | None = None
    guidance_rescale: float | None = None
    eta: float | None = None
    gamma: float | None = None
    guidance_interval: GuidanceInterval | None = None
    step_reuse: StepReuse | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    clip_skip: int | None = None
    model: str = ""
    model_hash: str = ""
    model_sha256: str = ""
    strength: float | None = None
    resize_mode: ResizeMode | None = None
    mask_blur: float | None = None
    crop_padding: int | None = None
    masked_content: MaskedContent | None = None
    soft: bool | None = None
    cover: bool | None = None
    margins: Margins | None = None
    variation: Variation | None = None
    tiling: Tiling | None = None
    decoder: Decoder | None = None
    second_pass: SecondPass | None = None
    embeddings: tuple[tuple[str, str], ...] = ()
    is_ours: bool = False
    notes: tuple[str, ...] = ()


def read_parameters(text: str) -> Parameters:
    """Read the text of a picture of ours, or of A1111's web UI as far as it is understood. Never raises."""
    found = sections(text)
    values = Values(dict(found.values))
    version = values.text("Version")
    is_ours = version.partition(" ")[0] == OURS
    prompt = take_tags(values.text("Raw prompt", found.prompt), web_ui=not is_ours)
    scheduler, spacing = _sampler(values, is_ours=is_ours)
    settings: dict[str, Any] = {name: values.read(key, read) for name, (key, read) in _SETTINGS.items()}
    timestep_spacing = TIMESTEP_SPACINGS.get(values.left.get("Schedule type", "").lower())
    if timestep_spacing is not None:
        values.left.pop("Schedule type")
    if scheduler in DEFAULT_ETA:
        settings["eta"] = values.read("Eta DDIM" if scheduler is Scheduler.DDIM else "Eta", number)
    if scheduler in DEFAULT_GAMMA:
        settings["gamma"] = values.read("TCD gamma", number)
    width, height = _size(values)
    second = second_pass_of(values, settings["strength"], settings["steps"], is_ours=is_ours)
    if second is not None:
        settings["strength"] = None
    short, full = _hashes(values.text("Lora hashes")), _hashes(values.text("Lora SHA-256"))
    words = _hashes(values.text("TI hashes")), _hashes(values.text("TI SHA-256"))
    notes = [f"{fault.removeprefix('holds ')}: left out" for fault in prompt.faults]
    return Parameters(
        prompt=prompt.text,
        negative_prompt=values.text("Raw negative prompt", found.negative_prompt),
        loras=tuple(_lora(tag, short, full) for tag in prompt.loras),
        scheduler=scheduler,
        sigma_spacing=spacing,
        timestep_spacing=timestep_spacing,
        width=width,
        height=height,
        model=values.text("Model"),
        model_hash=values.text("Model hash").lower(),
        model_sha256=values.text("Model SHA-256").lower(),
        variation=_variation(values),
        embeddings=tuple({**dict(words[0]), **dict(words[1])}.items()),
        second_pass=second,
        is_ours=is_ours,
        notes=(*notes, *_notes(values, version, text, is_ours=is_ours)),
        **settings,
    )


_SETTINGS: Mapping[str, tuple[str, Callable[[str], Any]]] = {
    "steps": ("Steps", whole),
    "guidance_scale": ("CFG scale", number),
    "guidance_rescale": ("CFG rescale", number),
    "guidance_interval": ("Guidance interval", GuidanceInterval.parse),
    "step_reuse": ("Step reuse", StepReuse.parse),
    "seed": ("Seed", whole),
    "clip_skip": ("Clip skip", layers),
    "strength": ("Denoising strength", number),
    "resize_mode": ("Resize mode", resize_mode_of),
    "mask_blur": ("Mask blur", number),
    "crop_padding": ("Masked area padding", whole),
    "masked_content": ("Masked content", CONTENTS.__getitem__),
    "soft": ("Soft inpainting", equals("true")),
    "cover": ("Latent mask", equals("cover")),
    "tiling": ("Tiling", Tiling.parse),
    "decoder": ("VAE Decoder", {"TAESD": Decoder.TINY, "Full": Decoder.VAE}.__getitem__),
    "margins": ("Outpainting margins", Margins.parse),
}
"""Field of Parameters -> key of the text, and how its value is read."""

_SILENT = ("RNG", "VAE hash", "VAE", "Hashes", "Emphasis", "Size-1", "Size-2")
"""What says nothing that could be lost without the rest of the picture showing it."""


def _sampler(values: Values, *, is_ours: bool) -> tuple[Scheduler | None, SigmaSpacing | None]:
    """The scheduler and its spacing; unknown ones stay in `values`, and are so noted."""
    name, old_schedule = split_sampler(values.left.get("Sampler", ""))
    schedule = values.left.get("Schedule type", "") or old_schedule
    scheduler, spacing = SAMPLERS.get(name.lower()), SPACINGS.get(schedule.lower())
    if scheduler is not None:
        values.left.pop("Sampler")
    if spacing is not None:
        values.left.pop("Schedule type", "")
        if scheduler is not None and schedule.lower() == AUTOMATIC and not is_ours:
            spacing = AUTOMATIC_SPACINGS.get(scheduler, spacing)
    return scheduler, spacing


def _variation(values: Values) -> Variation | None:
    seed, strength = values.read("Variation seed", whole), values.read("Variation seed strength", number)
    return Variation(strength, seed) if strength else None


def _size(values: Values) -> tuple[int | None, int | None]:
    def read(text: str) -> tuple[int, int]:
        width, _, height = text.partition("x")
        return whole(width), whole(height)

    found: tuple[int, int] | None = values.read("Size", read)
    return found or (None, None)


def _hashes(text: str) -> list[tuple[str, str]]:
    """`name: hash, name: hash` as pairs; what is no hash is left out."""
    pairs = [pair.rpartition(":") for pair in text.split(",")]
    return [
        (name.strip(), digits.strip().lower()) for name, _, digits in pairs if HASH.fullmatch(digits.strip())
    ]


def _lora(tag: LoraTag, short: list[tuple[str, str]], full: list[tuple[str, str]]) -> PictureLora:
    """A LoRA with its hashes, which are taken from the lists: two can have one name."""
    name = without_marks(tag.name).strip()
    found = []
    for hashes in (short, full):
        index = next((index for index, (other, _) in enumerate(hashes) if other == name), None)
        found.append("" if index is None else hashes.pop(index)[1])
    autov3, sha256 = found
    strengths = tag.strength, tag.text_encoder_strength
    return PictureLora(tag.name, *strengths, autov3, sha256, tag.block_weights, tag.start, tag.end)


def _notes(values: Values, version: str, text: str, *, is_ours: bool) -> list[str]:
    said = [f"{wrong} is not understood" for wrong in values.wrong]
    unused = [f"{key}: {cut(value)}" for key, value in values.left.items() if key not in _SILENT]
    if unused:
        said.append(f"not used: {', '.join(unused)}")
    if not version and text.rstrip().endswith("…"):
        said.append("the text was cut when it was written; what stood at its end is lost")
    elif not is_ours:
        drawn = f"{version} drew" if version else "another program drew"
        said.append(f"{cut(drawn)} it, from other noise; expect a picture like it, not the same")
    return said
