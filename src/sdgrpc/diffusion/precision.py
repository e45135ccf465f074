"""The dtype that `auto` stands for."""

from __future__ import annotations

import torch

from sdgrpc.processor import has_bfloat16

# UNets smaller than this stay float32: the published ones have 860 million parameters and more, while for
# the embedded model speed is no matter and equal bits everywhere are.
SMALLEST_HALVED = 100_000_000


def automatic_dtype(unet_parameters: int, device: torch.device) -> torch.dtype:
    """The device's fastest safe dtype for a model whose UNet has so many numbers; float32 if it is small."""
    return fastest_dtype(device) if unet_parameters >= SMALLEST_HALVED else torch.float32


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CPUs with AVX-512 BF16 or AMX and GPUs with it, float16 on other GPUs, else float32."""
    if has_bfloat16(device):
        return torch.bfloat16
    return torch.float32 if device.type == "cpu" else torch.float16
