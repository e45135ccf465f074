"""OFTv2: rotations of a weight's columns, as PEFT and OneTrainer write them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect

CAYLEY_TERMS = 5
"""What PEFT and OneTrainer compute where nothing else is said."""


def oft2_block(tensors: Tensors) -> int:
    """Return b of oft_R `(n, b * (b - 1) / 2)`.

    Raises:
        BadTensors: no b gives that many numbers.

    """
    count = expect(tensors, "oft_R", 2).shape[1]
    block = (1 + math.isqrt(1 + 8 * count)) // 2
    if block * (block - 1) // 2 != count:
        raise BadTensors("oft_R", f"has {count} numbers per block, which are no half of a square block")
    return block


def oft2_size(tensors: Tensors) -> Size:
    """Check the blocks of an OFTv2; a single one is shared by all the columns.

    Raises:
        BadTensors: they are no blocks.

    """
    block, count = oft2_block(tensors), tensors["oft_R"].shape[0]
    return Size(columns=None if count == 1 else count * block, step=block)


def oft2(weight: Tensor, tensors: Tensors) -> Tensor:
    """OFTv2: W' = W R', R block-diagonal over the columns. Qiu et al. 2025, https://arxiv.org/abs/2506.19847.

    oft_R `(n, b * (b - 1) / 2)`: the upper halves of skew Q; one row is shared by all blocks. With
    OneTrainer's mark scaled_oft it is Q times 2 sqrt(b - 1). Configurations may say more: `cayley_terms`, see
    `oft2_turns`; and `coft_eps`, constrained OFT: the norm of each Q as stored is at most eps / sqrt(n).
    """
    return _turned(weight, _turns(tensors).mT)


def oft2_kernels(weight: Tensor, tensors: Tensors) -> Tensor:
    """OFTv2 of a convolution: W' = W R' as PEFT computes it; W R where `kernels_forward` says so.

    OneTrainer and sd-scripts rotate a linear layer's inputs by R, which is W R', but of a convolution the
    weight itself.
    """
    turns = _turns(tensors)
    return _turned(weight, turns if "kernels_forward" in tensors else turns.mT)


def _turned(weight: Tensor, turns: Tensor) -> Tensor:
    """Return the change of a flat weight `(out, columns)` whose columns are multiplied by blocks."""
    blocks = weight.reshape(weight.shape[0], -1, turns.shape[-1])
    turned = torch.einsum("onk,nkc->onc", blocks, turns.expand(blocks.shape[1], -1, -1))
    return turned.flatten(1) - weight


def _turns(tensors: Tensors) -> Tensor:
    """Return the rotations of the blocks, `(n, b, b)`."""
    packed, block = tensors["oft_R"], oft2_block(tensors)
    q = packed.new_zeros((packed.shape[0], block, block))
    rows, columns = torch.triu_indices(block, block, 1, device=packed.device)
    q[:, rows, columns] = packed
    q = q - q.mT
    if "coft_eps" in tensors:
        bound = float(tensors["coft_eps"].item()) / math.sqrt(packed.shape[0])
        norm = torch.linalg.vector_norm(q, dim=(1, 2), keepdim=True)
        q = torch.where(norm > bound, q * (bound / norm), q)
    if "scaled_oft" in tensors and bool(tensors["scaled_oft"].all()):
        q = q / (2 * math.sqrt(block - 1))
    return oft2_turns(q, int(tensors["cayley_terms"].item()) if "cayley_terms" in tensors else CAYLEY_TERMS)


def oft2_turns(q: Tensor, terms: int) -> Tensor:
    """Make PEFT's rotations of skew blocks Q `(n, b, b)`.

    As a Neumann series of Cayley's map: I + 2 Q + ... + 2 Q^(t-2) + Q^(t-1) of t terms, 5 by default. As PEFT
    sums it, 1 is I, 2 is I + 2 Q, and 3 is the same as 4. With 0 the exact map, which PEFT turns the other
    way: (I - Q)(I + Q)^-1, the inverse of what the series tends to.
    """
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device).expand_as(q)
    if terms == 0:
        turns: Tensor = torch.linalg.solve(identity + q, identity - q, left=False)
        return turns
    if terms <= 2:
        return identity + 2 * (terms - 1) * q
    total, power = identity + 2 * q, q
    for _ in range(2, max(terms, 4) - 1):
        power = power @ q
        total = total + 2 * power
    return total + power @ q
