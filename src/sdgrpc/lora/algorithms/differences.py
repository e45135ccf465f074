"""The mathematics of what is stored as plain differences: whole weights, norms, a few single numbers.

Notation as in `algorithms`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, Tensors, expect


def full_size(tensors: Tensors) -> Size:
    """Check a full difference.

    Raises:
        BadTensors: it is no weight's shape.

    """
    diff = expect(tensors, "diff", 1, 2, 4)
    return Size(diff.shape[0], diff[0].numel(), tuple(diff.shape[2:]))


def full(tensors: Tensors) -> Tensor:
    """Full difference: dW = diff, of W's own shape; no alpha. LyCORIS's `full`, ComfyUI's extracted files."""
    return tensors["diff"].reshape(tensors["diff"].shape[0], -1)


def norm_size(tensors: Tensors) -> Size:
    """Check a norm's difference.

    Raises:
        BadTensors: it is no vector.

    """
    return Size(expect(tensors, "w_norm", 1).shape[0], 1)


def norm(tensors: Tensors) -> Tensor:
    """Norm difference: dw = w_norm, and db = b_norm for the bias; no alpha. LyCORIS's `norm`."""
    return tensors["w_norm"].reshape(-1, 1)


def sparse(tensors: Tensors, size: Size) -> Tensor:
    """Sparse remainder of LyCORIS's extracted files, a matrix in COO form, added before a is applied.

    bias_indices `(2, n)`, bias_values `(n,)`, bias_size `(2,)` = (out, columns).
    """
    shape = (int(size.rows or 0), int(size.columns or 0))
    indices = tensors["bias_indices"].long()
    dense = torch.zeros(shape, dtype=tensors["bias_values"].dtype, device=tensors["bias_values"].device)
    return dense.index_put((indices[0], indices[1]), tensors["bias_values"], accumulate=True)


def check_sparse(tensors: Tensors, size: Size) -> None:
    """Check a sparse remainder against the size of its weight.

    Raises:
        BadTensors: a part is missing, or an index lies outside.

    """
    for role in ("bias_indices", "bias_values", "bias_size"):
        if role not in tensors:
            there = next(name for name in tensors if name.startswith("bias_"))
            raise BadTensors(there, f"is there without {role}")
    indices, values = expect(tensors, "bias_indices", 2), expect(tensors, "bias_values", 1)
    if indices.shape != (2, values.shape[0]) or indices.is_floating_point():
        raise BadTensors("bias_indices", f"has the shape {list(indices.shape)}, not (2, {values.shape[0]})")
    if tensors["bias_size"].flatten().tolist() != [size.rows, size.columns]:
        raise BadTensors("bias_size", f"says {tensors['bias_size'].tolist()}, the module is {size}")
    limit = torch.tensor([[size.rows], [size.columns]])
    if bool(((indices < 0) | (indices >= limit)).any()):
        raise BadTensors("bias_indices", "points outside of its weight")
