"""The rules of every single field of the contract's requests.

A test compares these tables with the contract's descriptors, so that no field can be overlooked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from sdgrpc import images
from sdgrpc.api.codec import Request
from sdgrpc.api.loras import steps
from sdgrpc.api.loras.block_weights import BLOCK_TABLE, one_form
from sdgrpc.api.loras.grids import either
from sdgrpc.api.rules import (
    Complaint,
    Rule,
    anything,
    every,
    exactly_one,
    fields,
    first,
    items,
    matching,
    member,
    multiple_of,
    name,
    number,
    one_of,
    refused,
    text,
    zero_or,
)
from sdgrpc.api.sampling.second_pass import one_size, second_pass_table
from sdgrpc.domain.decimals import shortest
from sdgrpc.domain.tasks import DEFAULT_LORA_STRENGTH
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb

Table = Mapping[str, Rule]

MAX_NAME = 256
MIN_SIDE = 64
SHA256 = matching("[0-9a-fA-F]{64}", "is not a SHA-256: 64 hexadecimal digits")


def request_table(kind: type[Request], settings: Settings) -> Table:
    """The rules of a request's fields."""
    side = zero_or(first(number(MIN_SIDE, settings.max_side), multiple_of(8)))
    table: dict[str, Rule] = {
        "request_id": name(MAX_NAME),
        "model": name(MAX_NAME),
        "prompt": text(settings.max_prompt_chars),
        "negative_prompt": text(settings.max_prompt_chars),
        "loras": items(
            every(exactly_one("source"), first(fields(lora_table(settings)), every(steps.rising, either))),
            at_most=settings.max_loras,
        ),
        "sampling": fields(sampling_table(settings)),
        "output": fields(output_table(settings)),
        "width": side,
        "height": side,
        "on_disconnect": member(pb.OnDisconnect.DESCRIPTOR),
    }
    if kind is pb.GenerateRequest:
        table["second_pass"] = first(fields(second_pass_table(settings)), one_size)
    else:
        table |= {
            "image": fields(IMAGE_TABLE),
            "strength": number(0.0, 1.0),
            "resize_mode": member(pb.ResizeMode.DESCRIPTOR),
        }
    if kind is pb.InpaintRequest:
        table |= {
            "mask": fields(IMAGE_TABLE),
            "mask_options": fields(mask_table(settings)),
            "margins": fields(margins_table(settings)),
        }
    return table


def lora_table(settings: Settings) -> Table:
    """The rules of a Lora's fields."""
    strength = lora_strength(settings)
    inline = refused("this server takes no LoRA files in requests; name one, or give its sha256")
    return {
        "name": name(MAX_NAME, needed=True),
        "sha256": SHA256,
        "safetensors": size_of_file(settings.max_inline_lora_bytes)
        if settings.allow_inline_loras
        else inline,
        "strength": strength,
        "text_encoder_strength": strength,
        "strict": anything,
        "block_weights": first(fields(BLOCK_TABLE), one_form),
        "strength_grid": items(strength, at_most=settings.max_image_count),
        "start": number(steps.START, steps.END, hint="; it is a share of the schedule"),
        "end": number(steps.START, steps.END, hint="; it is a share of the schedule"),
    }


def lora_strength(settings: Settings) -> Rule:
    """A number in the operator's range; the complaint names the setting that would have to change."""
    low, high = settings.lora_strength_min, settings.lora_strength_max
    bounds = number(low, high)

    def rule(value: float) -> Iterator[Complaint]:
        for path, sentence in bounds(value):
            bound = "lora_strength_min" if value < low else "lora_strength_max"
            hint = f"; the server's operator can change that with {bound}" if math.isfinite(value) else ""
            yield path, f"{sentence}{hint}"

    return rule


def unset_lora_strength(settings: Settings) -> Callable[[pb.Lora], Iterator[Complaint]]:
    """A LoRA without a strength has the default one, which the operator's range may not hold."""
    allowed = lora_strength(settings)

    def rule(lora: pb.Lora) -> Iterator[Complaint]:
        if not lora.HasField("strength") and not lora.strength_grid:
            for _, sentence in allowed(DEFAULT_LORA_STRENGTH):
                yield ".strength", f"is unset, which means {DEFAULT_LORA_STRENGTH}: {sentence}"

    return rule


def size_of_file(most: int) -> Rule:
    """A file that is there and not too large."""

    def rule(value: bytes) -> Iterator[Complaint]:
        if not value:
            yield "", "is empty"
        elif len(value) > most:
            yield "", f"has {len(value)} bytes; the most is {most}"

    return rule


def sampling_table(settings: Settings) -> Table:
    """The rules of Sampling's fields."""
    return {
        "steps": zero_or(number(1, settings.max_steps)),
        "guidance_scale": number(1.0, 100.0, hint="; 1 turns guidance off"),
        "scheduler": member(pb.Scheduler.DESCRIPTOR),
        "sigma_spacing": member(pb.SigmaSpacing.DESCRIPTOR),
        "seed": number(0, 2**63 - 1, hint="; leave it unset for a random seed"),
        "image_count": zero_or(number(1, settings.max_image_count)),
        "clip_skip": number(0, 64),
        "timestep_spacing": member(pb.TimestepSpacing.DESCRIPTOR),
        "guidance_rescale": number(0.0, 1.0),
        "eta": number(0.0, 1.0),
        "gamma": number(0.0, 1.0),
        "guidance_interval": first(fields(INTERVAL_TABLE), rising),
        "step_reuse": fields(REUSE_TABLE),
        "late_start": number(0.0, 1.0, hint="; it is a share of the schedule"),
        "variation": fields(VARIATION_TABLE),
        "tiling": fields(TILING_TABLE),
    }


def rising(interval: pb.GuidanceInterval) -> Iterator[Complaint]:
    """Begin before the end."""
    if interval.start >= interval.end:
        start, end = shortest(interval.start), shortest(interval.end)
        yield ".end", f"{end} is not above the start, {start}"


def output_table(settings: Settings) -> Table:
    """The rules of Output's fields."""
    return {
        "media_type": one_of(images.MEDIA_TYPES),
        "quality": zero_or(number(1, 100)),
        "preview": fields(preview_table(settings)),
        "omit_metadata": anything,
        "decoder": member(pb.Decoder.DESCRIPTOR),
    }


def preview_table(settings: Settings) -> Table:
    """The rules of PreviewOptions' fields."""
    return {
        "kind": member(pb.PreviewKind.DESCRIPTOR),
        "every_n_steps": zero_or(number(1, settings.max_steps)),
        "max_side": zero_or(number(1, settings.max_side)),
    }


def mask_table(settings: Settings) -> Table:
    """The rules of MaskOptions' fields."""
    return {
        "blur": number(0.0, 1024.0),
        "crop_padding": number(0, settings.max_image_side),
        "masked_content": member(pb.MaskedContent.DESCRIPTOR),
        "soft": anything,
        "cover": anything,
    }


def margins_table(settings: Settings) -> Table:
    """The rules of Margins' fields."""
    return dict.fromkeys(("left", "top", "right", "bottom"), number(0, settings.max_image_side))


INTERVAL_TABLE: Table = {"start": number(0.0, 1.0), "end": number(0.0, 1.0)}
REUSE_TABLE: Table = {
    "every": number(2, 8, hint="; 2 asks in every second step, and unset `step_reuse` in all"),
    "order": zero_or(number(1, 2)),
}
VARIATION_TABLE: Table = {"seed": number(0, 2**63 - 1), "strength": number(0.0, 1.0)}
TILING_TABLE: Table = {"horizontal": anything, "vertical": anything}
# `data` is judged by decoding it; the contract says that the others are ignored in requests.
IMAGE_TABLE: Table = {"data": anything, "media_type": anything, "width": anything, "height": anything}
