"""The dtype that `auto` stands for."""

from __future__ import annotations

import torch

# UNets smaller than this stay float32: the published ones have 860 million parameters and more, while for
# the embedded model speed is no matter and equal bits everywhere are.
SMALLEST_HALVED = 100_000_000


def automatic_dtype(unet_parameters: int, device: torch.device) -> torch.dtype:
    """The device's fastest safe dtype for a model whose UNet has so many numbers; float32 if it is small."""
    return fastest_dtype(device) if unet_parameters >= SMALLEST_HALVED else torch.float32


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CPUs with AVX-512 BF16 or AMX and GPUs with it, float16 on other GPUs, else float32."""
    if device.type == "cpu":
        return torch.bfloat16 if _cpu_has_bfloat16() else torch.float32
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16
    return torch.float16


def _cpu_has_bfloat16() -> bool:
    # torch has no public name for them; where one is gone the answer is no.
    checks = (
        getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return any(check() for check in checks if check is not None)
