"""The mathematics of the algorithms whose change depends on the weight itself.

Notation as in `algorithms`; W comes flat, `(out, columns)`, and pristine: each member of a set is computed
from the base's own weight, so the order of members never matters. Strength s gives W + s * (W' - W).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect, scale


def ia3_size(tensors: Tensors) -> Size:
    """Check an (IA)^3 vector.

    Raises:
        BadTensors: it is no vector, or what says its side is no flag.

    """
    weight, on_input = expect(tensors, "weight", 1, 2, 4), tensors["on_input"]
    if max(weight.shape) != weight.numel():
        raise BadTensors("weight", f"has the shape {list(weight.shape)}, not that of a vector")
    if on_input.numel() != 1:
        raise BadTensors("on_input", f"has the shape {list(on_input.shape)}, not that of one flag")
    return Size(inputs=weight.numel()) if on_input.item() else Size(rows=weight.numel())


def ia3(weight: Tensor, tensors: Tensors) -> Tensor:
    """(IA)^3: dW = W * w along the inputs (on_input 1) or the outputs (0); no alpha.

    w `(dim,)` or `(1, dim, 1, 1)`. Liu et al. 2022, https://arxiv.org/abs/2205.05638; LyCORIS's `ia3`,
    where w is what is added to 1.
    """
    vector = tensors["weight"].flatten()
    if not tensors["on_input"].item():
        return weight * vector[:, None]
    return weight * vector.repeat_interleave(weight.shape[1] // vector.numel())


def glora_is_old(tensors: Tensors) -> bool:
    """Tell the two layouts of GLoRA apart by their shapes.

    New: a1 `(in, r)`, a2 `(r, in)`, b1 `(out, r)`, b2 `(r, columns)`. Old: a1 `(r, columns)`,
    a2 `(columns, r)`, b1 `(r, columns)`, b2 `(out, r)`. Where a square weight makes both possible, the rank
    is the smaller number.

    Raises:
        BadTensors: neither.

    """
    a1, a2, b1, b2 = (expect(tensors, role, 2, 4).flatten(1) for role in ("a1", "a2", "b1", "b2"))
    is_new = a1.shape[1] == a2.shape[0] == b1.shape[1] == b2.shape[0] and a1.shape[0] == a2.shape[1]
    is_old = a1.shape[0] == a2.shape[1] == b1.shape[0] == b2.shape[1] and a1.shape[1] == a2.shape[0]
    if not (is_new or is_old):
        raise BadTensors("a1", f"has the shape {list(a1.shape)}, which its partners do not fit")
    return is_old and not (is_new and a1.shape[0] >= a1.shape[1])


def glora_size(tensors: Tensors) -> Size:
    """Check the factors of a GLoRA.

    Raises:
        BadTensors: they fit neither layout.

    """
    if glora_is_old(tensors):
        columns = tensors["a2"].shape[0]
        if tensors["b1"].flatten(1).shape[1] != columns:
            raise BadTensors("b1", f"has the shape {list(tensors['b1'].shape)}; a2 is for {columns} columns")
        return Size(tensors["b2"].shape[0], columns)
    inputs, b2 = tensors["a1"].shape[0], tensors["b2"]
    kernel = tuple(b2.shape[2:])
    if "bm" in tensors:
        core = expect(tensors, "bm", 4)
        if core.shape[:2] != (b2.shape[0],) * 2 or math.prod(kernel) != 1:
            raise BadTensors("bm", f"has the shape {list(core.shape)}, which its factors do not fit")
        kernel = tuple(core.shape[2:])
    columns = b2.shape[1] * math.prod(kernel)
    if columns % inputs:
        raise BadTensors("b2", f"has the shape {list(b2.shape)}; a1 is for {inputs} inputs")
    return Size(tensors["b1"].shape[0], columns, kernel, inputs)


def glora_rank(tensors: Tensors) -> int:
    """Return r."""
    return tensors["a1"].shape[0 if glora_is_old(tensors) else 1]


def glora(weight: Tensor, tensors: Tensors) -> Tensor:
    """GLoRA: dW = a * (b1 @ b2 + W @ a1 @ a2), in the old layout a * (b2 @ b1 + W @ a2 @ a1).

    In the new layout W @ a1 runs over the input channels of a convolution, whose kernel b2 has, or Tucker's
    core bm `(r, r, kh, kw)`. Chavan et al. 2023, https://arxiv.org/abs/2306.07967; LyCORIS's `glora`.
    """
    a1, a2, b1, b2 = (tensors[role].flatten(1) for role in ("a1", "a2", "b1", "b2"))
    factor = scale(tensors, glora_rank(tensors))
    if glora_is_old(tensors):
        return (b2 @ b1 + weight @ a2 @ a1) * factor
    if "bm" in tensors:
        b2 = torch.einsum("mnkl,nj->mjkl", tensors["bm"], b2).flatten(1)
    channels = weight.reshape(weight.shape[0], a1.shape[0], -1)
    turned = torch.einsum("oik,ij,jl->olk", channels, a1, a2).flatten(1)
    return (b1 @ b2 + turned) * factor


def oft_size(tensors: Tensors) -> Size:
    """Check the blocks of a diagonal OFT or a BOFT.

    Raises:
        BadTensors: they are not square, or do not make a butterfly.

    """
    role = "oft_blocks" if "oft_blocks" in tensors else "oft_diag"
    blocks = expect(tensors, role, 3, 4) if role == "oft_blocks" else expect(tensors, role, 3)
    count, block = blocks.shape[-3], blocks.shape[-1]
    rows = count * block
    if blocks.shape[-2] != block:
        raise BadTensors(role, f"has the shape {list(blocks.shape)}; its blocks are not square")
    if blocks.ndim == 4 and (block % 2 or rows % (block << (blocks.shape[0] - 1))):
        raise BadTensors(role, f"has the shape {list(blocks.shape)}, which makes no butterfly")
    if "rescale" in tensors and tensors["rescale"].numel() != rows:
        raise BadTensors("rescale", f"has {tensors['rescale'].numel()} numbers for {rows} rows")
    return Size(rows)


def rotations(blocks: Tensor, constraint: float) -> Tensor:
    """Cayley's map of each block B: R = (I + Q)(I - Q)^-1 with Q = B - B'.

    blocks `(..., b, b)`; a `constraint` above 0 bounds the norm of all the Q together.
    """
    q = blocks - blocks.mT
    if constraint > 0:
        size = torch.linalg.vector_norm(q) + 1e-8
        q = torch.where(size > constraint, q * (constraint / size), q)
    identity = torch.eye(q.shape[-1], dtype=q.dtype, device=q.device)
    turns: Tensor = torch.linalg.solve(identity - q, identity + q, left=False)
    return turns


def _constraint(tensors: Tensors, rows: int) -> float:
    return float(tensors["alpha"].item()) * rows if "alpha" in tensors else 0.0


def _rescaled(weight: Tensor, tensors: Tensors) -> Tensor:
    return weight * tensors["rescale"].reshape(-1, 1) if "rescale" in tensors else weight


def oft(weight: Tensor, tensors: Tensors) -> Tensor:
    """Diagonal OFT: W' = R' W block by block [* rescale]. Qiu et al. 2023, https://arxiv.org/abs/2306.07280.

    oft_blocks `(n, b, b)`, n * b = out, of which Cayley's map makes R; alpha is the constraint, times out;
    rescale `(out, 1[, 1, 1])`. In old LyCORIS files oft_diag `(n, b, b)` is R itself.
    """
    if "oft_diag" in tensors:
        turns = tensors["oft_diag"]
    else:
        turns = rotations(tensors["oft_blocks"], _constraint(tensors, weight.shape[0]))
    blocks = weight.reshape(*turns.shape[:2], -1)
    return _rescaled(torch.einsum("knm,knc->kmc", turns, blocks).flatten(0, 1), tensors) - weight


def boft(weight: Tensor, tensors: Tensors) -> Tensor:
    """BOFT: m stages of block rotations, stage i on rows 2^i * b / 2 apart [* rescale].

    oft_blocks `(m, n, b, b)`, n * b = out; alpha and rescale as in OFT. Liu et al. 2023,
    https://arxiv.org/abs/2311.06243; LyCORIS's `boft`. Unlike there, strength interpolates the whole change
    and not each stage.
    """
    turns = rotations(tensors["oft_blocks"], _constraint(tensors, weight.shape[0]))
    block, columns = turns.shape[-1], weight.shape[1]
    total = weight
    for stage, turn in enumerate(turns):
        apart = 2**stage * (block // 2)
        paired = total.reshape(-1, 2, apart, columns).transpose(1, 2).reshape(-1, block, columns)
        turned = turn @ paired
        total = turned.reshape(-1, apart, 2, columns).transpose(1, 2).reshape(-1, columns)
    return _rescaled(total, tensors) - weight
