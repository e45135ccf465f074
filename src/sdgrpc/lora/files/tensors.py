"""Tensors as views of a file's bytes, every float of them finite."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sdgrpc.errors import LoraMalformed
from sdgrpc.tensor_files.header import TensorClaim

CHECKED = 1 << 15
"""Numbers that are looked at together for NaN: so few that torch uses one thread, while another hashes."""


def views(data: Tensor, run: Sequence[TensorClaim], name: str) -> dict[str, Tensor]:
    """Cut tensors of one dtype, whose bytes follow one another, out of the data.

    Every float is finite, those of alphas aside.

    Raises:
        LoraMalformed: one holds NaN or infinity.

    """
    dtype = run[0].dtype
    flat = data[run[0].begin : run[-1].end]
    if flat.data_ptr() % dtype.itemsize:
        flat = flat.clone()  # no kernel is promised to work on misaligned numbers
    flat = flat.view(dtype)
    pieces = torch.split(flat, [(claim.end - claim.begin) // dtype.itemsize for claim in run])
    tensors = {claim.key: piece.view(claim.shape) for claim, piece in zip(run, pieces, strict=True)}
    if not _is_finite(flat):
        # An alpha is judged where it is known whether it counts: LyCORIS writes some that no half can hold.
        broken = (key for key, one in tensors.items() if not key.endswith(".alpha") and not _is_finite(one))
        if key := next(broken, None):
            raise LoraMalformed(name, f"tensor {key!r} holds NaN or infinity", key=key)
    return tensors


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point():
        return True
    return all(_is_finite_piece(piece) for piece in torch.split(tensor.flatten(), CHECKED))


def _is_finite_piece(numbers: Tensor) -> bool:
    if numbers.dtype in (torch.float64, torch.float8_e4m3fn, torch.float8_e5m2):
        numbers = numbers.float()  # what they are used as, and what the 8-bit kinds have a sum of
    # A finite sum has finite terms and costs one pass; only a sum that overflows needs the second look.
    return math.isfinite(numbers.sum(dtype=torch.float32)) or bool(torch.isfinite(numbers).all())
