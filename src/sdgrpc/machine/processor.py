"""What the processor can compute with."""

from __future__ import annotations

import torch


def has_bfloat16(device: torch.device) -> bool:
    """Whether products of bfloat16 matrices are faster on the device than those of float32 ones.

    On CPUs that takes AVX-512 BF16 or AMX; others emulate it, several times slower.
    """
    if device.type == "cpu":
        # torch has no public name for them; where one is gone the answer is no.
        checks = (
            getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        )
        return any(check() for check in checks if check is not None)
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
