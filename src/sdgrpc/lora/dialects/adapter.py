"""A LoRA file in one form, whatever its dialect: modules with their tensors by role."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from sdgrpc.lora.algorithms.algorithm import Algorithm
from sdgrpc.lora.algorithms.registry import BIAS, LORA
from sdgrpc.lora.algorithms.tensors import Size
from sdgrpc.lora.dialects.tokens import Bundled
from sdgrpc.lora.headers.components import COMPONENTS

WITHOUT_ALPHA = (
    "_lora.down.weight",
    ".lora.down.weight",
    ".lora_layer.down.weight",
    ".lora_linear_layer.down.weight",
    ":down",
)
"""Endings of diffusers' older names and of the numbered layout, where the factors are all there is.

So they are in its current names, which begin with a component, unless the file's metadata have an alpha.
"""


@dataclass(frozen=True, slots=True)
class AdapterModule:
    """One module's tensors, by role, as the file spells it."""

    spelling: str
    algorithm: Algorithm
    tensors: Mapping[str, Tensor] = field(repr=False)
    keys: Mapping[str, str] = field(repr=False)
    size: Size

    @property
    def label(self) -> str:
        """What the algorithm is called: LoRA of a wide kernel is LoCon; DoRA may stand on any other."""
        name = self.algorithm.name
        if self.algorithm is LORA:
            name = "locon" if math.prod(self.size.kernel) > 1 else "lora"
        if self.has_dora:
            return "dora" if self.algorithm is LORA else f"dora+{name}"
        return name

    @property
    def rank(self) -> int | None:
        """The rank, where the algorithm has one."""
        return self.algorithm.rank(self.tensors)

    @property
    def alpha(self) -> float | None:
        """The alpha that the file gives, if any."""
        alpha = self.tensors.get("alpha")
        return None if alpha is None else float(alpha.item())

    @property
    def uses_alpha(self) -> bool:
        """Whether alpha scales the change, as it does where there is a rank."""
        return self.algorithm.has_alpha and self.rank is not None

    @property
    def misses_alpha(self) -> bool:
        """Whether a scale of 1 is a guess: the format has an alpha, and neither it nor the scale is told."""
        if not self.uses_alpha or self.tensors.keys() & {"alpha", "scale"}:
            return False
        down = self.keys.get("down", "")
        return not down.startswith(COMPONENTS) and not down.endswith(WITHOUT_ALPHA)

    @property
    def has_integer_alpha(self) -> bool:
        """Whether alpha counts and was saved as an integer other than 0, as converters do."""
        alpha = self.tensors.get("alpha")
        return self.uses_alpha and alpha is not None and not alpha.is_floating_point() and bool(alpha.item())

    @property
    def has_dora(self) -> bool:
        """Whether magnitudes are trained besides."""
        return "dora_scale" in self.tensors or "magnitude" in self.tensors

    @property
    def bias_role(self) -> str | None:
        """The tensor that changes the module's bias, if any."""
        return next((role for role in ("diff_b", "b_norm", "up_bias") if role in self.tensors), None)

    @property
    def changes_weight(self) -> bool:
        """Whether the weight is changed, not only the bias."""
        return self.algorithm is not BIAS

    @property
    def is_low_rank(self) -> bool:
        """Whether the change is one low-rank product and nothing else."""
        return self.algorithm.factors is not None and not self.has_dora and "bias_values" not in self.tensors

    @property
    def needs_weight(self) -> bool:
        """Whether the change depends on the weight that it is applied to."""
        return self.algorithm.weighted is not None or self.has_dora

    def dora_inputs(self, weight: tuple[int, ...]) -> int | None:
        """Return how many input channels the magnitudes are for; None where they are for the rows.

        PEFT's are always for the rows. Of kohya's the shape tells, `(out, 1)` or `(1, in)`; of a vector on a
        square weight nothing does, and the inputs are taken, as SD.Next does.
        """
        if "dora_scale" not in self.tensors or len(weight) < 2:
            return None
        magnitudes = self.tensors["dora_scale"]
        if magnitudes.ndim == 1:
            return weight[1] if magnitudes.numel() == weight[1] else None
        return None if magnitudes.shape[0] == magnitudes.numel() else weight[1]

    def fits(self, weight: tuple[int, ...]) -> bool:
        """Whether a weight of this shape can be meant."""
        if not self.size.fits(weight):
            return False
        if not self.has_dora:
            return True
        magnitudes = self.tensors["dora_scale" if "dora_scale" in self.tensors else "magnitude"]
        return magnitudes.numel() == (self.dora_inputs(weight) or weight[0])


@dataclass(frozen=True, eq=False)
class Adapter:
    """A LoRA file in one form, whatever its dialect. It owns its tensors; nobody writes them.

    `unmatched` are keys of no known kind, `tokens` what the file brings for the prompt. `smaller` is the
    smaller relative of a base that the file says it is for, as SSD-1B; empty where it says none. `autov3` is
    the hash by which A1111 knows the file.
    """

    name: str
    sha256: str
    modules: tuple[AdapterModule, ...]
    unmatched: tuple[str, ...]
    tokens: tuple[Bundled, ...]
    metadata: Mapping[str, str] = field(repr=False)
    tensor_count: int
    nbytes: int
    smaller: str = ""
    autov3: str = ""
