"""A picture's parameters -> the form."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sdgrpc.client import SecondPass
from sdgrpc.parameters import Parameters, read_parameters
from sdgrpc.web.page.beside import Strength
from sdgrpc.web.page.form import LARGEST, Strengths


def restored(
    text: str, models: Collection[str], loras: Collection[str]
) -> tuple[dict[str, Any], Strengths, list[str]]:
    """Return the components' values, the LoRAs' strengths, and what of the text could not be used."""
    found = read_parameters(text)
    notes = list(found.notes)
    values: dict[str, Any] = {
        "prompt": found.prompt,
        "negative_prompt": found.negative_prompt,
        "spacing": _spacing(found),
        "scheduler": found.scheduler.value if found.scheduler else "",
    }
    for name in ("steps", "guidance_scale", "width", "height"):
        if getattr(found, name) is not None:
            values[name] = getattr(found, name)
    if found.seed is not None:
        values |= {"seed": str(found.seed), "locked": True}
    if found.model in models:
        values["model"] = found.model
    elif found.model:
        notes.append(f"the server has no model {found.model!r}")
    notes += [f"the server has no LoRA {one.name!r}" for one in found.loras if one.name not in loras]
    strengths: Strengths = {
        # A plain tuple: the page keeps it as JSON.
        one.name: tuple(
            Strength(one.strength, one.text_encoder_strength, one.block_weights, one.start, one.end)
        )
        for one in found.loras
        if one.name in loras
    }
    values["loras"] = list(strengths)
    values |= _second_pass(found, notes)
    return values, strengths, notes


def _second_pass(found: Parameters, notes: list[str]) -> dict[str, Any]:
    """The fold's values; what it has no field for is noted."""
    second = found.second_pass
    if second is None:
        return {"second_scale": 1}
    scale = second.scale or (second.width / found.width if second.width and found.width else 1.0)
    here = SecondPass(min(max(scale, 1.0), LARGEST), strength=second.strength, steps=second.steps)
    if here != second or second.steps not in (0, found.steps):
        notes.append(f"the second pass was {second}; here it goes through latents, in the first one's steps")
    return {"second_scale": here.scale, "second_strength": second.strength}


def _spacing(found: Parameters) -> str:
    if found.sigma_spacing is not None and found.sigma_spacing.value != "default":
        return f"sigma:{found.sigma_spacing.value}"
    return f"timestep:{found.timestep_spacing.value}" if found.timestep_spacing else ""
