"""The bases of models, as the contract names them: what LoRA files are for, and what models are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SD15, SD2, SDXL = "sd15", "sd2", "sdxl"
OWN = "embedded"
"""The base of the model that comes with the package, which is of a kind of its own."""
UNKNOWN = "unknown"
"""What a LoRA file is said to be for that fits no base."""


@dataclass(frozen=True, slots=True)
class Base:
    """A base: `title` is what a model of it is called, `short` what messages call it.

    `width` is that of the text embeddings that its UNet attends to; None for the package's own.
    """

    title: str
    short: str
    width: int | None


BASES: Mapping[str, Base] = {
    SD15: Base("Stable Diffusion 1", "SD1.5", 768),
    SD2: Base("Stable Diffusion 2", "SD2", 1024),
    SDXL: Base("Stable Diffusion XL", "SDXL", 2048),
    OWN: Base("Small latent diffusion model", "the embedded model", None),
}


def base_of_width(width: int) -> str:
    """Return the base whose UNet attends to embeddings of this width; another is of our own kind."""
    return next((name for name, base in BASES.items() if base.width == width), OWN)
