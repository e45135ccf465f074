"""Drawing on at a larger size."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import Enum
from fractions import Fraction

from sdgrpc.domain.sampling import NUMBER

DEFAULT_SCALE = 2.0
DEFAULT_STRENGTH = 0.7
UNIT = 8  # pixels; a size is a multiple


class SecondPassMode(Enum):
    """How the second pass gets its start; see `SecondPassMode` of the contract."""

    LATENT = "latent"
    PIXEL = "pixel"


@dataclass(frozen=True, slots=True)
class SecondPass:
    """What was drawn is enlarged and drawn on; see `SecondPass` of the contract.

    The size is a multiple of the first one, `scale`, or pixels; 0 leaves it open, as it does with `steps`.
    """

    scale: float = 0.0
    width: int = 0
    height: int = 0
    strength: float = DEFAULT_STRENGTH
    steps: int = 0
    mode: SecondPassMode = SecondPassMode.LATENT
    upscaler: str = ""

    def resolved(self, width: int, height: int, steps: int) -> SecondPass:
        """Return it with size and steps filled in, after a first pass of those; the scale is kept."""
        own_width, own_height = self._size(width, height)
        scale = self.scale or (0.0 if self.width or self.height else DEFAULT_SCALE)
        filled = replace(self, scale=scale, width=own_width, height=own_height, steps=self.steps or steps)
        return replace(filled, mode=SecondPassMode.PIXEL) if self.upscaler else filled

    def _size(self, width: int, height: int) -> tuple[int, int]:
        if self.width or self.height:
            return (
                self.width or in_proportion(self.height, width, height),
                self.height or in_proportion(self.width, height, width),
            )
        scale = Fraction(repr(float(self.scale or DEFAULT_SCALE)))
        return int(width * scale) // UNIT * UNIT, int(height * scale) // UNIT * UNIT

    @classmethod
    def parse(cls, text: str) -> SecondPass:
        """Read `SIZE[:STRENGTH[:STEPS]][:HOW]`; raises ValueError.

        The size is a scale or `1024x768`, of which one side can be left out; how is `latent`, `pixel` or an
        upscaler's name.
        """
        match = _FORM.fullmatch(text)
        size = match["size"] if match else "x"
        if match is None or size in ("x", "X"):
            raise ValueError(
                f"{text}: write SIZE[:STRENGTH[:STEPS]][:latent|pixel|UPSCALER], as in 2, 1024x768:0.6 or "
                "2:0.5:20:pixel"
            )
        how = match["how"] or "latent"
        is_mode = how in _MODES
        width, by, height = size.lower().partition("x")
        return cls(
            scale=0.0 if by else float(size),
            width=int(width or 0) if by else 0,
            height=int(height or 0),
            strength=float(match["strength"] or DEFAULT_STRENGTH),
            steps=int(match["steps"] or 0),
            mode=_MODES[how] if is_mode else SecondPassMode.PIXEL,
            upscaler="" if is_mode else how,
        )

    def __str__(self) -> str:
        size = repr(self.scale) if self.scale else f"{self.width or ''}x{self.height or ''}"
        steps = f":{self.steps}" if self.steps else ""
        return f"{size}:{self.strength!r}{steps}:{self.upscaler or self.mode.value}"


_MODES = {mode.value: mode for mode in SecondPassMode}
_FORM = re.compile(
    rf"(?P<size>{NUMBER}|[0-9]{{0,5}}[xX][0-9]{{0,5}})"
    rf"(:(?P<strength>{NUMBER})(:(?P<steps>[0-9]{{1,4}}))?)?(:(?P<how>[^:]*[^:0-9.][^:]*))?",
    re.ASCII,
)


def in_proportion(given: int, wanted: int, other: int) -> int:
    """The side that is to `given` as `wanted` is to `other`, in multiples of 8: the nearest, at least one."""
    return max((2 * given * wanted + UNIT * other) // (2 * UNIT * other), 1) * UNIT
