"""What is to be drawn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from fractions import Fraction

from sdgrpc.domain.blocks import NO_WEIGHTS, BlockWeights, Factors
from sdgrpc.domain.output import Output
from sdgrpc.domain.pictures import Picture, ResizeMode
from sdgrpc.domain.sampling import Sampling
from sdgrpc.domain.second_pass import SecondPass


class TaskKind(Enum):
    """Which of the three RPCs a task came from."""

    GENERATE = "generate"
    TRANSFORM = "transform"
    INPAINT = "inpaint"


def asks_negative(guidance_scale: float, weights: Sequence[float]) -> bool:
    """Whether the UNet is asked about the negative prompt too, beside the parts of a prompt with weights.

    `negative + scale * sum(weight * (positive - negative))` is free of it for a scale of 1, no guidance, and
    weights that add up to 1, as the single one of a prompt without parts does.
    """
    return guidance_scale > 1 or abs(sum(weights) - 1) > 1e-6


DEFAULT_LORA_STRENGTH = 1.0
"""What it means that a LoRA is asked for without a strength."""


@dataclass(frozen=True, slots=True)
class LoraRef:
    """One LoRA of a task, by exactly one of `name`, `sha256` (lower-case hex) or `content`.

    `block_factors` are what `block_weights` mean for the task's model. `start` and `end` are shares of the
    schedule; see `domain.phases`. `strength_grid` has both strengths of each picture, in place of the others.
    """

    strength: float = DEFAULT_LORA_STRENGTH
    text_encoder_strength: float = DEFAULT_LORA_STRENGTH
    name: str = ""
    sha256: str = ""
    content: bytes = field(default=b"", repr=False)
    strict: bool = False
    block_weights: BlockWeights = NO_WEIGHTS
    block_factors: Factors = ()
    start: float = 0.0
    end: float = 1.0
    strength_grid: tuple[tuple[float, float], ...] = ()

    def at(self, strength: float, text_encoder_strength: float) -> LoraRef:
        """Return it at one pair of its grid's strengths."""
        return replace(self, strength=strength, text_encoder_strength=text_encoder_strength, strength_grid=())

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self.name or self.sha256[:12] or "(inline)"


class MaskedContent(Enum):
    """What the masked part of a picture starts from; see `MaskedContent` of the contract."""

    ORIGINAL = "original"
    FILL = "fill"
    NOISE = "noise"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """How to use a mask. `crop_padding` None redraws the whole picture.

    With `soft` greys say from which noise level on a place is redrawn; with `cover` each latent cell that the
    mask touches is.
    """

    blur: float = 0.0
    crop_padding: int | None = None
    masked_content: MaskedContent = MaskedContent.ORIGINAL
    soft: bool = False
    cover: bool = False


@dataclass(frozen=True, slots=True)
class Margins:
    """Pixels that were added to each side of a picture."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    def __bool__(self) -> bool:
        return any((self.left, self.top, self.right, self.bottom))

    @classmethod
    def parse(cls, text: str) -> Margins:
        """Read what `str` writes, `left:top:right:bottom`; raises ValueError."""
        if not re.fullmatch(r"[0-9]{1,5}(:[0-9]{1,5}){3}", text, re.ASCII):
            raise ValueError(f"{text}: write LEFT:TOP:RIGHT:BOTTOM in pixels, as in 64:0:64:0")
        return cls(*map(int, text.split(":")))

    def __str__(self) -> str:
        return f"{self.left}:{self.top}:{self.right}:{self.bottom}"


@dataclass(frozen=True, slots=True)
class Task:
    """One valid request with every default resolved. `model` is the name of a loaded model.

    `width` and `height` are pixels, multiples of 8. `image` (RGB) is set for transform and inpaint, at
    its own size; `mask` (grey, as large as `image`) for inpaint. `strength` is 1 for generate. With
    `keeps_size` or a crop an inpainting result has the size of `image`, whatever size is drawn. `caller` is
    the name of the token that asked; empty where none is needed. `resize_mode` brings `image` and `mask` to
    the task's size. `margins` were added to both already. `warnings` are what reading the request found.
    `second_pass` has its size and steps filled in.
    """

    kind: TaskKind
    request_id: str
    model: str
    prompt: str
    negative_prompt: str
    loras: tuple[LoraRef, ...]
    sampling: Sampling
    output: Output
    width: int
    height: int
    image: Picture | None = None
    mask: Picture | None = None
    strength: float = 1.0
    mask_options: MaskOptions = MaskOptions()
    keeps_size: bool = False
    caller: str = ""
    resize_mode: ResizeMode = ResizeMode.STRETCH
    warnings: tuple[str, ...] = ()
    margins: Margins = Margins()
    second_pass: SecondPass | None = None

    @property
    def grid(self) -> tuple[tuple[float, float], ...]:
        """Both strengths that its one LoRA with a grid has in each picture; empty where none has one."""
        return next((ref.strength_grid for ref in self.loras if ref.strength_grid), ())

    @property
    def pictures(self) -> tuple[Task, ...]:
        """Each picture of a grid as a task of its own; without one the task itself."""
        if not self.grid:
            return (self,)
        alone = replace(self, sampling=replace(self.sampling, image_count=1))
        return tuple(
            replace(alone, loras=tuple(ref.at(*both) if ref.strength_grid else ref for ref in self.loras))
            for both in self.grid
        )

    @property
    def passes(self) -> tuple[Task, ...]:
        """Each pass as a task of its own; the second redraws what the first drew."""
        second = self.second_pass
        if second is None:
            return (self,)
        first = replace(self, second_pass=None)
        return first, replace(
            first,
            kind=TaskKind.TRANSFORM,
            sampling=replace(self.sampling, steps=second.steps),
            width=second.width,
            height=second.height,
            strength=second.strength,
            resize_mode=ResizeMode.CROP,
        )

    @property
    def result_size(self) -> tuple[int, int]:
        """Width and height that are drawn at last."""
        last = self.second_pass or self
        return last.width, last.height

    @property
    def step_count(self) -> int:
        """Steps that will run, in all passes."""
        return sum(each.steps_of_pass for each in self.passes)

    @property
    def steps_of_pass(self) -> int:
        """Steps of the first pass: the share `strength` of the schedule, rounded down, but one at least.

        The strength is its shortest decimal: 50 steps at 0.58 are 29, where floats give 28.99….
        Strength 0 runs none.
        """
        share = int(Fraction(repr(float(self.strength))) * self.sampling.steps)
        return min(max(share, 1), self.sampling.steps) if self.strength > 0 else 0
