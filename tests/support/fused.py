"""Fused sets of small models."""

from __future__ import annotations

import torch
from torch import nn

from sdgrpc.lora.fusing.cache import FusedSets, Lease
from tests.support.loras import CONVOLUTION, CROSS, LINEAR, POINTWISE, TEXT_LINEAR, small_components

EVERYWHERE = (LINEAR, CROSS, CONVOLUTION, POINTWISE, TEXT_LINEAR)
MEBIBYTE = 1 << 20


def sets(components: dict[str, nn.Module] | None = None, capacity: int = MEBIBYTE) -> FusedSets:
    """Sets for a small model."""
    return FusedSets(components or small_components(), base="embedded", capacity_bytes=capacity)


def fused_weights(lease: Lease) -> dict[str, torch.Tensor]:
    """The weights of a set by the paths of their modules."""
    return {
        name.removesuffix(".weight"): tensor
        for tensors in lease.overlay.tensors.values()
        for name, tensor in tensors.items()
    }
