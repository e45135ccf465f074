"""What an algorithm is: the roles of its tensors and its mathematics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sdgrpc.lora.algorithms.tensors import Size, Tensors


def no_rank(_: Tensors) -> int | None:
    """Say that the algorithm has no rank."""
    return None


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One algorithm: the roles of its tensors and its mathematics.

    `needed` are the roles that must be there, `allowed` those that may be besides. One of `factors` (a
    low-rank product), `change` (from the tensors alone) and `weighted` (from the pristine weight too) is its
    formula; `on_kernels` that for convolutions, where it is another; `weighted_bias` what is added to the
    bias, where that depends on it. `has_alpha` is whether alpha / rank scales the change, as it does where
    there is a rank; in OFT alpha is a bound.
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
    weighted_bias: Callable[[Tensor, Tensors], Tensor] | None = None
    has_alpha: bool = False


def roles(names: str) -> frozenset[str]:
    """Return the roles that a text lists."""
    return frozenset(names.split())
