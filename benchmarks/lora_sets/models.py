"""A U-Net and a text encoder of Stable Diffusion 1.5's real size, or tiny ones, with random weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

NOISE = 1 << 22
"""Random numbers that all weights are cut from: making a billion is slow, and their values do not matter."""


@dataclass(frozen=True, slots=True)
class Size:
    """The dimensions of a model; `latent` is the side of the latents that its steps are timed with."""

    channels: tuple[int, ...]
    width: int
    layers: int
    heads: int
    vocabulary: int
    latent: int


REAL = Size((320, 640, 1280, 1280), 768, 12, 12, 49_408, 8)
TINY = Size((32, 64, 64, 64), 32, 2, 2, 100, 8)


def components(size: Size, dtype: torch.dtype) -> dict[str, nn.Module]:
    """Build `unet` and `text_encoder` in `dtype`."""
    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel(
            block_out_channels=size.channels,
            cross_attention_dim=size.width,
            attention_head_dim=8,
            norm_num_groups=32,
        )
        text = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=size.vocabulary,
                hidden_size=size.width,
                intermediate_size=4 * size.width,
                num_hidden_layers=size.layers,
                num_attention_heads=size.heads,
            )
        )
    return {"unet": filled(unet, dtype), "text_encoder": filled(text, dtype)}


def filled(module: nn.Module, dtype: torch.dtype, seed: int = 0) -> nn.Module:
    """Give every parameter memory of its own, filled with noise of the spread that training starts with."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(NOISE, generator=generator).to(dtype)
    for owner in module.modules():
        for name, parameter in owner.named_parameters(recurse=False):
            weight = torch.empty(parameter.shape, dtype=dtype)
            flat, filled_up = weight.view(-1), 0
            while filled_up < flat.numel():
                start = int(torch.randint(NOISE // 2, (1,), generator=generator))
                count = min(flat.numel() - filled_up, NOISE - start)
                flat[filled_up : filled_up + count] = noise[start : start + count]
                filled_up += count
            weight.mul_(0.02 if weight.ndim < 2 else (weight[0].numel()) ** -0.5)
            owner._parameters[name] = nn.Parameter(weight, requires_grad=False)
    return module.eval()


def nbytes(module: nn.Module) -> int:
    """Bytes of a module's parameters."""
    return sum(parameter.nbytes for parameter in module.parameters())
