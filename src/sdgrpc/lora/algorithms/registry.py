"""Which tensors belong to which algorithm, and how to apply them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdgrpc.lora.algorithms import additive, differences, multiplicative, oftv2
from sdgrpc.lora.algorithms.algorithm import Algorithm, roles
from sdgrpc.lora.algorithms.peft.table import PEFT_KINDS
from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors


def oft_rank(tensors: Tensors) -> int | None:
    """Return the size of an OFT's blocks, which stands for its rank."""
    return tensors["oft_blocks" if "oft_blocks" in tensors else "oft_diag"].shape[-1]


LORA = Algorithm(
    "lora",
    "LoRA",
    roles("up down"),
    roles("mid up_bias"),
    additive.lora_size,
    additive.lora_rank,
    factors=additive.lora,
    has_alpha=True,
)
LOHA = Algorithm(
    "loha",
    "LoHa",
    roles("hada_w1_a hada_w1_b hada_w2_a hada_w2_b"),
    roles("hada_t1 hada_t2"),
    additive.loha_size,
    additive.loha_rank,
    change=additive.loha,
    has_alpha=True,
)
LOKR = Algorithm(
    "lokr",
    "LoKr",
    frozenset(),
    roles("lokr_w1 lokr_w1_a lokr_w1_b lokr_t1 lokr_w2 lokr_w2_a lokr_w2_b lokr_t2"),
    additive.lokr_size,
    additive.lokr_rank,
    change=additive.lokr,
    has_alpha=True,
)
FULL = Algorithm("full", "full", roles("diff"), frozenset(), differences.full_size, change=differences.full)
NORM = Algorithm(
    "norm", "norm", roles("w_norm"), roles("b_norm"), differences.norm_size, change=differences.norm
)
BIAS = Algorithm("full", "full", frozenset(), frozenset(), lambda _: Size())
IA3 = Algorithm(
    "ia3",
    "(IA)^3",
    roles("weight on_input"),
    frozenset(),
    multiplicative.ia3_size,
    weighted=multiplicative.ia3,
)
GLORA = Algorithm(
    "glora",
    "GLoRA",
    roles("a1 a2 b1 b2"),
    roles("bm"),
    multiplicative.glora_size,
    multiplicative.glora_rank,
    weighted=multiplicative.glora,
    has_alpha=True,
)
OFT = Algorithm(
    "oft",
    "OFT",
    frozenset(),
    roles("oft_blocks oft_diag rescale"),
    multiplicative.oft_size,
    oft_rank,
    weighted=multiplicative.oft,
)
BOFT = Algorithm(
    "boft",
    "BOFT",
    roles("oft_blocks"),
    roles("rescale"),
    multiplicative.oft_size,
    oft_rank,
    weighted=multiplicative.boft,
)
OFT2 = Algorithm(
    "oftv2",
    "OFTv2",
    roles("oft_R"),
    roles("scaled_oft"),
    oftv2.oft2_size,
    oftv2.oft2_block,
    weighted=oftv2.oft2,
    on_kernels=oftv2.oft2_kernels,
)

KINDS: Sequence[Algorithm] = (LORA, LOHA, LOKR, FULL, NORM, IA3, GLORA, OFT, OFT2, *PEFT_KINDS)
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
