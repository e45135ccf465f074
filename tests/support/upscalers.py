"""Upscalers of a few thousand numbers, under the names that ESRGAN's files were published with."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

FEATURES, GROWTH = 8, 32


def rrdb_tensors(blocks: int = 1, scale: int = 4, seed: int = 0) -> dict[str, Tensor]:
    """The state dict of an RRDBNet with random weights, as xinntao's ESRGAN and Real-ESRGAN name them."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}

    def convolution(name: str, inputs: int, outputs: int) -> None:
        width = (inputs * 9) ** -0.5
        tensors[f"{name}.weight"] = torch.randn((outputs, inputs, 3, 3), generator=generator) * width
        tensors[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1

    convolution("conv_first", 3, FEATURES)
    for block in range(blocks):
        for part in (1, 2, 3):
            for layer in range(1, 6):
                outputs = FEATURES if layer == 5 else GROWTH
                convolution(f"body.{block}.rdb{part}.conv{layer}", FEATURES + GROWTH * (layer - 1), outputs)
    convolution("conv_body", FEATURES, FEATURES)
    for step in range(1, scale.bit_length()):
        convolution(f"conv_up{step}", FEATURES, FEATURES)
    convolution("conv_hr", FEATURES, FEATURES)
    convolution("conv_last", FEATURES, 3)
    return tensors


def save_upscaler(path: Path, **shape: int) -> Path:
    """A file of such weights: safetensors, or a pickle that keeps them under `params_ema`."""
    tensors = rrdb_tensors(**shape)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save({"params_ema": tensors}, path)
    return path
