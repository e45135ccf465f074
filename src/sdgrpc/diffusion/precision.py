"""The dtype that `auto` stands for."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from sdgrpc.diffusion.original import UNET

# UNets smaller than this stay float32: the published ones have 860 million parameters and more, while for
# the embedded model speed is no matter and equal bits everywhere are.
SMALLEST_HALVED = 100_000_000


def automatic_dtype(place: Path, device: torch.device) -> torch.dtype:
    """The device's fastest safe dtype for the model at `place`, a folder or file; float32 if it is small.

    A place that cannot be read counts as small: loading it then says what is wrong.
    """
    return fastest_dtype(device) if unet_parameters(place) >= SMALLEST_HALVED else torch.float32


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


def unet_parameters(place: Path) -> int:
    """How many numbers the UNet's files hold, from their headers alone; 0 where there are none to be read."""
    files = [place] if place.is_file() else sorted((place / "unet").glob("*.safetensors"))
    prefix = UNET if place.is_file() else ""
    try:
        return sum(_parameters(file, prefix) for file in files)
    except (SafetensorError, OSError):
        return 0


def _parameters(file: Path, prefix: str) -> int:
    with safe_open(file, framework="pt") as reader:
        names = [name for name in reader.keys() if name.startswith(prefix)]  # noqa: SIM118 - it is no mapping
        return sum(math.prod(reader.get_slice(name).get_shape()) for name in names)
