"""DoRA: a change of any algorithm in direction, with a magnitude of its own."""

from __future__ import annotations

import torch
from torch import Tensor


def dora(weight: Tensor, change: Tensor, magnitude: Tensor, *, inputs: int | None) -> Tensor:
    """DoRA on top of any change: W' = m * (W + dW) / |W + dW|. Liu et al. 2024, https://arxiv.org/abs/2402.09353.

    Returns W' - W. The norm is that of each row of W + dW, m `(out,)`; or with `inputs` that of each input
    channel over rows and kernel, m `(inputs,)`: LyCORIS before April 2025 and OneTrainer.
    """
    total = weight + change
    small = torch.finfo(torch.float32).eps
    channels = total[:, :, None] if inputs is None else total.reshape(total.shape[0], inputs, -1)
    axes, shape = ((1, 2), (-1, 1, 1)) if inputs is None else ((0, 2), (1, -1, 1))
    lengths: Tensor = torch.linalg.vector_norm(channels, dim=axes, keepdim=True) + small
    decomposed: Tensor = channels * (magnitude.reshape(shape) / lengths)
    return decomposed.flatten(1) - weight
