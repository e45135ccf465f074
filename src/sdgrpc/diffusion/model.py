"""A loaded Stable Diffusion model: one record that every module of this room is handed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from sdgrpc.domain import ModelInfo


@dataclass(eq=False)
class Model:
    """Tokenizers, networks and the scheduler's configuration of one checkpoint, on one device.

    `tokenizers` and `text_encoders` are keyed as in a diffusers folder (`tokenizer`, `text_encoder`, and
    `…_2` where the architecture has two). `unet` and the text encoders run in `dtype`, the VAE in
    `precision.vae_dtype` of it. With `force_zeros_for_empty_prompt`, which is SDXL's, an empty
    negative prompt is zeros instead of an encoded nothing. `tiny` is a fast decoder of latents as the UNet
    has them. Nothing here is written after loading: schedulers are built from `scheduler_config` for each
    job, and LoRA sets point the modules at other tensors.
    """

    info: ModelInfo
    tokenizers: dict[str, CLIPTokenizer]
    text_encoders: dict[str, CLIPTextModel]
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    scheduler_config: dict[str, Any]
    device: torch.device
    dtype: torch.dtype
    force_zeros_for_empty_prompt: bool = False
    tiny: nn.Module | None = None

    @property
    def is_sdxl(self) -> bool:
        """Whether two text encoders and the picture's size condition the UNet."""
        return "text_encoder_2" in self.text_encoders

    def tokenizer_of(self, text_encoder: str) -> CLIPTokenizer:
        """Return the tokenizer of `text_encoder` or `text_encoder_2`."""
        return self.tokenizers[text_encoder.replace("text_encoder", "tokenizer")]

    def lora_components(self) -> dict[str, nn.Module]:
        """The modules that LoRAs may change, by the names that reports use."""
        return {"unet": self.unet, **self.text_encoders}

    @property
    def latent_scale(self) -> float:
        """What the VAE's latents are multiplied by before the UNet sees them: 0.18215 for SD1."""
        return float(self.vae.config.scaling_factor)

    def latent_size(self, width: int, height: int) -> tuple[int, int]:
        """Latent (height, width) of an image of `width` by `height` pixels."""
        factor = self.info.vae_scale_factor
        return height // factor, width // factor
