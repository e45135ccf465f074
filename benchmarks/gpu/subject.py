"""SD1.5 and SDXL, published configurations and random weights, made on the device; and LoRA files."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    EulerDiscreteScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from benchmarks.layout import lay_out
from benchmarks.lora_sets.files import CONVOLUTIONS, SINGLE, TRANSFORMER, Kind, write
from sdgrpc.diffusion.checkpoints.card import model_info
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.checkpoints.precision import memory_format, vae_dtype
from sdgrpc.diffusion.compiling.calls import UNetInputs
from sdgrpc.diffusion.model import Model
from tests.support.full_size import full_size_networks
from tests.support.models import SD15_SCHEDULER, SDXL_SCHEDULER, save_model, save_sdxl_model, tiny_tokenizer

KINDS = (SINGLE, Kind("rank-32 transformer", 32, TRANSFORMER), Kind("rank-8 convolutions", 8, CONVOLUTIONS))


@dataclass(frozen=True, eq=False)
class Subject:
    """A model with its name and picture size in pixels, and a folder with LoRA files and their names."""

    name: str
    model: Model
    side: int
    folder: Path
    loras: tuple[str, ...]

    def pipeline(self, *, own_weights: bool) -> Any:  # noqa: ANN401 - diffusers has no types
        """Return diffusers' pipeline on the same networks, or on copies that it may fuse LoRAs into."""
        model = self.model
        parts: dict[str, Any] = {"unet": model.unet, **model.text_encoders}
        if own_weights:
            parts = {name: copy.deepcopy(part) for name, part in parts.items()}
        scheduler = EulerDiscreteScheduler.from_config(model.scheduler_config)
        rest = {"vae": model.vae, "scheduler": scheduler, **model.tokenizers}
        if model.is_sdxl:
            pipe = StableDiffusionXLPipeline(**parts, **rest, add_watermarker=False)
        else:
            checks = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
            pipe = StableDiffusionPipeline(**parts, **rest, **checks)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def inputs(self, rows: int) -> UNetInputs:
        """Return what a call of the UNet takes for so many rows of the picture's size."""
        config, device, dtype = self.model.unet.config, self.model.device, self.model.dtype
        latent = self.side // 8
        return UNetInputs(
            torch.randn(rows, 4, latent, latent, device=device).to(dtype),
            torch.full((rows,), 500.0, device=device),
            torch.randn(rows, 77, config.cross_attention_dim, device=device).to(dtype),
            *self._added(rows),
        )

    def _added(self, rows: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        if not self.model.is_sdxl:
            return None, None
        device = self.model.device
        width = self.model.text_encoders["text_encoder_2"].config.projection_dim
        sizes = torch.tensor([[self.side, self.side, 0, 0, self.side, self.side]], dtype=torch.float32)
        pooled = torch.randn(rows, width, device=device).to(self.model.dtype)
        return pooled, sizes.to(device).repeat(rows, 1)


def make(name: str, folder: Path, device: torch.device, *, tiny: bool, loras: int) -> Subject:
    """Build `sd15` or `sdxl` and write `loras` different files for it."""
    folder.mkdir()
    model = _tiny(name, folder, device) if tiny else _real(name, device)
    names = tuple(f"{name}-lora{number}" for number in range(loras))
    for number, lora in enumerate(names):
        write(KINDS[number % len(KINDS)], model.lora_components(), folder / f"{lora}.safetensors", number)
    side = 64 if tiny else {"sd15": 512, "sdxl": 1024}[name]
    return Subject(name, model, side, folder, names)


def _tiny(name: str, folder: Path, device: torch.device) -> Model:
    save = save_sdxl_model if name == "sdxl" else save_model
    return load(name, save(folder / "model"), device=device, dtype=torch.float32)


def _real(name: str, device: torch.device) -> Model:
    torch.manual_seed(0)
    tokenizer, dtype = tiny_tokenizer(), torch.bfloat16
    with device:  # made where they are used: a billion numbers take long on the CPU
        networks = full_size_networks(tokenizer)
        if name == "sdxl":
            networks |= _sdxl_networks(tokenizer)
    layout = memory_format(sum(one.numel() for one in networks["unet"].parameters()), device)
    for part, network in networks.items():
        network.to(device, vae_dtype(dtype) if part == "vae" else dtype)
        lay_out(network, layout).requires_grad_(requires_grad=False).eval()
    encoders = {part: network for part, network in networks.items() if part.startswith("text_encoder")}
    tokenizers = {part.replace("text_encoder", "tokenizer"): tokenizer for part in encoders}
    scheduler = SDXL_SCHEDULER if name == "sdxl" else SD15_SCHEDULER
    parts: Mapping[str, Any] = networks | tokenizers
    return Model(
        info=model_info(name, Path("none"), parts, scheduler, embedded=False),
        tokenizers=tokenizers,
        text_encoders=encoders,
        unet=networks["unet"],
        vae=networks["vae"],
        scheduler_config=dict(scheduler),
        device=device,
        dtype=dtype,
        force_zeros_for_empty_prompt=name == "sdxl",
    )


def _sdxl_networks(tokenizer: Any) -> dict[str, nn.Module]:  # noqa: ANN401 - transformers'
    unet = UNet2DConditionModel(
        sample_size=128,
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 10),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=1280,
        intermediate_size=5120,
        num_hidden_layers=32,
        num_attention_heads=20,
        hidden_act="gelu",
        projection_dim=1280,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return {"unet": unet, "text_encoder_2": CLIPTextModelWithProjection(config)}
