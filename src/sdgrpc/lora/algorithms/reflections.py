"""Turns of a weight's inputs as PEFT writes them: Householder reflections, and butterflies of rotations.

Notation as in `multiplicative`: W comes flat, `(out, columns)`, and pristine; each returns W' - W.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect


def hra_size(tensors: Tensors) -> Size:
    """Check the vectors of an HRA.

    Raises:
        BadTensors: they are none.

    """
    return Size(columns=expect(tensors, "hra_u", 2).shape[0])


def hra_rank(tensors: Tensors) -> int:
    """Return r, the number of reflections."""
    return tensors["hra_u"].shape[1]


def hra(weight: Tensor, tensors: Tensors) -> Tensor:
    """HRA: W' = W H_1 ... H_r with H_i = I - 2 u_i u_i'. Yuan et al. 2024, https://arxiv.org/abs/2405.17484.

    hra_u `(columns, r)`, each column brought to length 1. With `gram_schmidt` (`apply_GS` of the
    configuration) they are made orthogonal first, one after the other.
    """
    vectors = tensors["hra_u"]
    total = weight
    if "gram_schmidt" in tensors:
        units: Tensor = torch.linalg.qr(vectors)[0]  # of the same spans as Gram and Schmidt's, but for signs
        return -2 * (weight @ units) @ units.T
    for unit in (vectors / vectors.norm(dim=0)).unbind(dim=1):
        total = total - 2 * (total @ unit)[:, None] * unit
    return total - weight


def peft_boft_size(tensors: Tensors) -> Size:
    """Check the blocks of a BOFT as PEFT writes it.

    Raises:
        BadTensors: they are not square, or make no butterfly.

    """
    blocks = expect(tensors, "boft_R", 4)
    stages, count, block, other = blocks.shape
    if block != other:
        raise BadTensors("boft_R", f"has the shape {list(blocks.shape)}; its blocks are not square")
    if stages > 1 and (block % 2 or count % (1 << (stages - 1))):
        raise BadTensors("boft_R", f"has the shape {list(blocks.shape)}, which makes no butterfly")
    return Size(expect(tensors, "boft_s", 2).numel(), count * block)


def peft_boft_rank(tensors: Tensors) -> int:
    """Return the size of the blocks, which stands for a rank."""
    return tensors["boft_R"].shape[-1]


def peft_boft(weight: Tensor, tensors: Tensors) -> Tensor:
    """BOFT of the inputs: W' = s * (W R_1' ... R_m'). Liu et al. 2023, https://arxiv.org/abs/2311.06243.

    boft_R `(m, n, b, b)`, n b = columns, of which Cayley's map (I - Q)(I + Q)^-1 with Q = (B - B') / 2 makes
    the blocks of each stage; boft_s has a number for each row. In stage i of several the columns of a group
    of 2^i b are taken in halves of blocks, the even ones before the odd ones. sd-scripts writes the same.
    """
    blocks = tensors["boft_R"]
    stages, count, size, _ = blocks.shape
    q = (blocks - blocks.mT) / 2
    identity = torch.eye(size, dtype=q.dtype, device=q.device).expand_as(q)
    turns: Tensor = torch.linalg.solve(identity + q, identity - q, left=False)
    total = weight
    for stage in range(stages):
        order = _order(count, size, stage, stages).to(weight.device)
        apart = torch.empty_like(total)
        apart[:, order] = total
        parts = apart.reshape(weight.shape[0], count, size)
        total = torch.einsum("onk,nck->onc", parts, turns[stage]).reshape(weight.shape)[:, order]
    return total * tensors["boft_s"].reshape(-1, 1) - weight


def _order(count: int, size: int, stage: int, stages: int) -> Tensor:
    """Return the order of the columns in a stage; as they are where there is but one."""
    columns = torch.arange(count * size)
    if stages == 1:
        return columns
    halves = columns.reshape(count >> stage, 2 << stage, size // 2)
    return torch.cat([halves[:, 0::2], halves[:, 1::2]], dim=1).flatten()
