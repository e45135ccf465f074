"""Weights as matrices in the order in which their numbers lie in memory.

The weight of a convolution `(out, in, kh, kw)` may be stored with its channels last, as `(out, kh, kw, in)`.
Read and written in that order, it is one run of memory; what is added to it is brought into that order first.
"""

from __future__ import annotations

import torch
from torch import Tensor


def has_channels_last(weight: Tensor) -> bool:
    """Whether the numbers of a weight lie in another order than its shape's."""
    return not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)


def as_matrix(weight: Tensor) -> Tensor:
    """Return a view `(out, columns)` of a weight in its own order; it has to be dense."""
    lying = weight.permute(0, 2, 3, 1) if has_channels_last(weight) else weight
    return lying.view(weight.shape[0], -1)


def in_order_of(weight: Tensor, matrix: Tensor) -> Tensor:
    """Return a matrix `(rows, in * kh * kw)` with its columns as `as_matrix` has them for this weight."""
    if not has_channels_last(weight):
        return matrix
    return matrix.reshape(len(matrix), *weight.shape[1:]).permute(0, 2, 3, 1).reshape(len(matrix), -1)
