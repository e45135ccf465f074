"""What is to be drawn."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from sdgrpc.domain.output import Output
from sdgrpc.domain.pictures import Picture, ResizeMode
from sdgrpc.domain.sampling import Sampling


class TaskKind(Enum):
    """Which of the three RPCs a task came from."""

    GENERATE = "generate"
    TRANSFORM = "transform"
    INPAINT = "inpaint"


DEFAULT_LORA_STRENGTH = 1.0
"""What it means that a LoRA is asked for without a strength."""


@dataclass(frozen=True, slots=True)
class LoraRef:
    """One LoRA of a task, by exactly one of `name`, `sha256` (lower-case hex) or `content`."""

    strength: float = DEFAULT_LORA_STRENGTH
    text_encoder_strength: float = DEFAULT_LORA_STRENGTH
    name: str = ""
    sha256: str = ""
    content: bytes = field(default=b"", repr=False)
    strict: bool = False

    @property
    def label(self) -> str:
        """What to call it in messages."""
        return self.name or self.sha256[:12] or "(inline)"


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """How to use a mask. `crop_padding` None redraws the whole picture."""

    blur: float = 0.0
    crop_padding: int | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One valid request with every default resolved. `model` is the name of a loaded model.

    `width` and `height` are pixels, multiples of 8. `image` (RGB) is set for transform and inpaint, at
    its own size; `mask` (grey, as large as `image`) for inpaint. `strength` is 1 for generate. With
    `keeps_size` or a crop an inpainting result has the size of `image`, whatever size is drawn. `caller` is
    the name of the token that asked; empty where none is needed. `resize_mode` brings `image` and `mask` to
    the task's size. `warnings` are what reading the request found.
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

    @property
    def step_count(self) -> int:
        """Steps that will run: the share `strength` of the schedule, rounded down, but one at least.

        The strength is its shortest decimal: 50 steps at 0.58 are 29, where floats give 28.99….
        Strength 0 runs none.
        """
        share = int(Fraction(repr(float(self.strength))) * self.sampling.steps)
        return min(max(share, 1), self.sampling.steps) if self.strength > 0 else 0
