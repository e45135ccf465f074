"""Frobenius norms of changes at strength 1, without making the change where its formula allows.

The identities, for factors as in `algorithms`:

- a product: |U D|^2 = sum((U'U) * (D D')), elementwise;
- LoHa: (A B) * (C D) is itself a product, of rank r^2: of the row-wise Khatri-Rao product of A and C with the
  column-wise one of B and D (Slyusar 1998). For high ranks the change is made instead, a few rows at a time;
- a Kronecker product: |kron(X, Y)| = |X| |Y|.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sdgrpc.lora.algorithms.additive import loha_rank, lokr_scale
from sdgrpc.lora.algorithms.tensors import Tensors, scale

ROWS = 64
"""As many rows of a LoHa are made at a time: they stay in the processor's cache."""


def pair_factors(tensors: Tensors, a: str, b: str, core: str) -> tuple[Tensor, Tensor]:
    """Return `(rows, r)` and `(r, columns)` of a pair, Tucker's core taken into the second."""
    left, right = tensors[a], tensors[b].flatten(1)
    if core in tensors:
        return left.T, torch.einsum("ijkl,jr->irkl", tensors[core], right).flatten(1)
    return left, right


def loha_norm(tensors: Tensors) -> float:
    """Norm of a LoHa, with alpha."""
    a, b = pair_factors(tensors, "hada_w1_a", "hada_w1_b", "hada_t1")
    c, d = pair_factors(tensors, "hada_w2_a", "hada_w2_b", "hada_t2")
    rows, columns, product = a.shape[0], b.shape[1], a.shape[1] * c.shape[1]
    by_gram, by_rows = (rows + columns) * product**2, 2 * rows * columns * (a.shape[1] + c.shape[1])
    if by_gram < by_rows:
        up = (a[:, :, None] * c[:, None, :]).flatten(1)
        down = (b[:, None, :] * d[None, :, :]).flatten(0, 1)
        norm = product_norm(up, down)
    else:
        pieces = zip(torch.split(a, ROWS), torch.split(c, ROWS), strict=True)
        norm = math.hypot(*(float(((x @ b) * (y @ d)).norm()) for x, y in pieces))
    return norm * abs(scale(tensors, loha_rank(tensors)))


def lokr_norm(tensors: Tensors) -> float:
    """Norm of a LoKr, with alpha."""
    return abs(lokr_scale(tensors)) * _lokr_part(tensors, 1) * _lokr_part(tensors, 2)


def _lokr_part(tensors: Tensors, number: int) -> float:
    whole = tensors.get(f"lokr_w{number}")
    if whole is not None:
        return float(torch.linalg.vector_norm(whole))
    a, b, core = f"lokr_w{number}_a", f"lokr_w{number}_b", f"lokr_t{number}"
    return product_norm(*pair_factors(tensors, a, b, core))


def product_norm(up: Tensor, down: Tensor) -> float:
    """Frobenius norm of `up @ down` without making it: sqrt(sum((up' up) * (down down')))."""
    squared = torch.dot((up.T @ up).flatten(), (down @ down.T).flatten()).item()
    return math.sqrt(max(squared, 0.0))
