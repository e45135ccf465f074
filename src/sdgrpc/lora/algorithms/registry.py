"""Which tensors belong to which algorithm, and how to apply them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from sdgrpc.lora.algorithms import additive, differences, multiplicative, oftv2
from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors


def no_rank(_: Tensors) -> int | None:
    """Say that the algorithm has no rank."""
    return None


def oft_rank(tensors: Tensors) -> int | None:
    """Return the size of an OFT's blocks, which stands for its rank."""
    return tensors["oft_blocks" if "oft_blocks" in tensors else "oft_diag"].shape[-1]


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm: the roles of its tensors and its mathematics.

    `needed` are the roles that must be there, `allowed` those that may be besides. One of `factors` (a
    low-rank product), `change` (from the tensors alone) and `weighted` (from the pristine weight too) is its
    formula; `on_kernels` that for convolutions, where it is another. `has_alpha` is whether alpha / rank
    scales the change, as it does where there is a rank; in OFT alpha is a bound.
    """

    name: str
    title: str
    needed: frozenset[str]
    allowed: frozenset[str]
    size: Callable[[Tensors], Size]
    rank: Callable[[Tensors], int | None] = no_rank
    factors: Callable[[Tensors], tuple[Tensor, Tensor]] | None = None
    change: Callable[[Tensors], Tensor] | None = None
    weighted: Callable[[Tensor, Tensors], Tensor] | None = None
    on_kernels: Callable[[Tensor, Tensors], Tensor] | None = None
    has_alpha: bool = False


def _roles(names: str) -> frozenset[str]:
    return frozenset(names.split())


LORA = Algorithm(
    "lora",
    "LoRA",
    _roles("up down"),
    _roles("mid up_bias"),
    additive.lora_size,
    additive.lora_rank,
    factors=additive.lora,
    has_alpha=True,
)
LOHA = Algorithm(
    "loha",
    "LoHa",
    _roles("hada_w1_a hada_w1_b hada_w2_a hada_w2_b"),
    _roles("hada_t1 hada_t2"),
    additive.loha_size,
    additive.loha_rank,
    change=additive.loha,
    has_alpha=True,
)
LOKR = Algorithm(
    "lokr",
    "LoKr",
    frozenset(),
    _roles("lokr_w1 lokr_w1_a lokr_w1_b lokr_t1 lokr_w2 lokr_w2_a lokr_w2_b lokr_t2"),
    additive.lokr_size,
    additive.lokr_rank,
    change=additive.lokr,
    has_alpha=True,
)
FULL = Algorithm("full", "full", _roles("diff"), frozenset(), differences.full_size, change=differences.full)
NORM = Algorithm(
    "norm", "norm", _roles("w_norm"), _roles("b_norm"), differences.norm_size, change=differences.norm
)
BIAS = Algorithm("full", "full", frozenset(), frozenset(), lambda _: Size())
IA3 = Algorithm(
    "ia3",
    "(IA)^3",
    _roles("weight on_input"),
    frozenset(),
    multiplicative.ia3_size,
    weighted=multiplicative.ia3,
)
GLORA = Algorithm(
    "glora",
    "GLoRA",
    _roles("a1 a2 b1 b2"),
    _roles("bm"),
    multiplicative.glora_size,
    multiplicative.glora_rank,
    weighted=multiplicative.glora,
    has_alpha=True,
)
OFT = Algorithm(
    "oft",
    "OFT",
    frozenset(),
    _roles("oft_blocks oft_diag rescale"),
    multiplicative.oft_size,
    oft_rank,
    weighted=multiplicative.oft,
)
BOFT = Algorithm(
    "boft",
    "BOFT",
    _roles("oft_blocks"),
    _roles("rescale"),
    multiplicative.oft_size,
    oft_rank,
    weighted=multiplicative.boft,
)
OFT2 = Algorithm(
    "oftv2",
    "OFTv2",
    _roles("oft_R"),
    _roles("scaled_oft"),
    oftv2.oft2_size,
    oftv2.oft2_block,
    weighted=oftv2.oft2,
    on_kernels=oftv2.oft2_kernels,
)

KINDS: Sequence[Algorithm] = (LORA, LOHA, LOKR, FULL, NORM, IA3, GLORA, OFT, OFT2)
MODIFIERS: Mapping[str, str] = {
    "alpha": "the scale's numerator",
    "scale": "the scale itself",
    "dora_scale": "DoRA's magnitudes, kohya's name",
    "magnitude": "DoRA's magnitudes, PEFT's name",
    "bias_indices": "sparse remainder",
    "bias_values": "sparse remainder",
    "bias_size": "sparse remainder",
    "diff_b": "difference of the bias",
}
"""Roles that may stand beside any algorithm."""


def algorithm_of(tensors: Tensors) -> Algorithm:
    """Recognise an algorithm by its tensors' roles.

    Raises:
        BadTensors: a needed tensor is missing, or two algorithms are mixed in one module.

    """
    own = tensors.keys() - MODIFIERS.keys()
    found = [kind for kind in KINDS if own & (kind.needed | kind.allowed)]
    if not own:
        if "diff_b" in tensors:
            return BIAS
        role = next(iter(tensors))
        raise BadTensors(role, "stands alone: its module has no other tensor")
    kind = found[0]
    if stray := own - kind.needed - kind.allowed:
        raise BadTensors(min(stray), f"is no tensor of {kind.title}, which its module uses")
    if missing := kind.needed - own:
        raise BadTensors(min(own), f"is there without its partner ({', '.join(sorted(missing))})")
    if kind is OFT and len(own & {"oft_blocks", "oft_diag"}) != 1:
        raise BadTensors(min(own), "needs oft_blocks or oft_diag beside it, and not both")
    if kind is OFT and "oft_blocks" in tensors and tensors["oft_blocks"].ndim == 4:
        return BOFT
    return kind
