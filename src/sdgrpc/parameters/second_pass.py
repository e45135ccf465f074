"""What the web UI calls "Hires. fix", read from a picture's text."""

from __future__ import annotations

import math
from fractions import Fraction

from sdgrpc.domain import SecondPass, SecondPassMode
from sdgrpc.domain.second_pass import DEFAULT_STRENGTH
from sdgrpc.parameters.reading_values import Values, number, whole
from sdgrpc.parameters.writing import HIRES_UPSCALERS

MOST_STEPS = 150
MODES = {name: mode for mode, name in HIRES_UPSCALERS.items()}


def second_pass_of(
    values: Values, strength: float | None, steps: int | None, *, is_ours: bool
) -> SecondPass | None:
    """The second pass of a picture with that `Denoising strength` and those `Steps`; None without one.

    Steps of the web UI all run, where ours are those of the whole schedule: it gets so long that as many run.
    Other ways to enlarge latents than the web UI's "Latent" stay in `values`, and are so noted.
    """
    scale, size = values.read("Hires upscale", number), values.read("Hires resize", _size)
    given = values.read("Hires steps", whole)
    if not scale and not size:
        return None
    strong = DEFAULT_STRENGTH if strength is None else strength
    if strong > 0 and not is_ours:
        given = min(math.ceil((given or steps or 0) / Fraction(repr(strong))), MOST_STEPS)
    upscaler = values.left.get("Hires upscaler", "Latent")
    is_latent, is_known = upscaler.startswith("Latent"), upscaler in MODES
    if is_known or not is_latent:
        values.text("Hires upscaler")
    width, height = size or (0, 0)
    return SecondPass(
        scale=0.0 if size else float(scale),
        width=width,
        height=height,
        strength=strong,
        steps=given or 0,
        mode=SecondPassMode.LATENT if is_latent else SecondPassMode.PIXEL,
        upscaler="" if is_known or is_latent else upscaler,
    )


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    return whole(width), whole(height)
