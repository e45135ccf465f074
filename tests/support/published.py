"""Tiny random models that keep the published ones' conventions: head widths, group norms, activations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tests.support.models import SD15_SCHEDULER, SDXL_SCHEDULER, tiny_tokenizer, write_json

WIDTH, SECOND_WIDTH, POOLED = 64, 128, 48
UNETS: dict[str, dict[str, Any]] = {
    "sd15": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (32, 64),
        "attention_head_dim": 8,
        "cross_attention_dim": WIDTH,
    },
    "sd2": {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (64, 128),
        "attention_head_dim": (1, 2),
        "cross_attention_dim": WIDTH,
        "use_linear_projection": True,
    },
    "sdxl": {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        "block_out_channels": (32, 64, 128),
        "attention_head_dim": (1, 1, 2),
        "transformer_layers_per_block": (1, 1, 2),
        "cross_attention_dim": WIDTH + SECOND_WIDTH,
        "use_linear_projection": True,
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 6 * 8 + POOLED,
    },
}


# What each was published with; `sd2-v` is the model for 768 pixels.
SCHEDULERS: dict[str, dict[str, Any]] = {
    "sd15": SD15_SCHEDULER,
    "sd2": SD15_SCHEDULER,
    "sd2-v": SD15_SCHEDULER | {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"},
    "sdxl": SDXL_SCHEDULER,
}
ARCHITECTURES = tuple(SCHEDULERS)
LIBRARIES = {"unet": "diffusers", "vae": "diffusers"}


def save_published(folder: Path, architecture: str, *, inpainting: bool) -> Path:
    """Write a random folder of `architecture` (`sd15`, `sd2`, `sd2-v`, `sdxl`) and return it."""
    torch.manual_seed(0)
    base = architecture.removesuffix("-v")
    parts: dict[str, Any] = {
        "tokenizer": tiny_tokenizer(),
        "text_encoder": _text_encoder(WIDTH, "gelu" if base == "sd2" else "quick_gelu"),
        "unet": UNet2DConditionModel(
            sample_size=8, in_channels=9 if inpainting else 4, layers_per_block=2, **UNETS[base]
        ),
        "vae": _vae(0.13025 if base == "sdxl" else 0.18215),
    }
    if base == "sdxl":
        parts |= {
            "tokenizer_2": tiny_tokenizer(),
            "text_encoder_2": _text_encoder(SECOND_WIDTH, "gelu", POOLED),
        }
    if base != "sd15":
        parts["tokenizer_2" if base == "sdxl" else "tokenizer"].pad_token = "!"
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    scheduler = SCHEDULERS[architecture]
    index = {name: [LIBRARIES.get(name, "transformers"), type(part).__name__] for name, part in parts.items()}
    index["scheduler"] = ["diffusers", scheduler["_class_name"]]
    write_json(folder / "model_index.json", _pipeline(base, inpainting=inpainting) | index)
    write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    return folder


def _pipeline(base: str, *, inpainting: bool) -> dict[str, Any]:
    """What the index says beside the components, so that diffusers loads the folder too."""
    family = "StableDiffusionXL" if base == "sdxl" else "StableDiffusion"
    name = f"{family}{'Inpaint' if inpainting else ''}Pipeline"
    said = {"_class_name": name, "_diffusers_version": "0.30.0"}
    if base == "sdxl":
        return said | {"force_zeros_for_empty_prompt": True}
    return said | {
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
        "requires_safety_checker": False,
    }


def _text_encoder(width: int, activation: str, pooled: int | None = None) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=len(tiny_tokenizer()),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=width // 64,
        hidden_act=activation,
        projection_dim=pooled or width,
        eos_token_id=2,
        initializer_factor=4.0,
    )
    return CLIPTextModelWithProjection(config) if pooled else CLIPTextModel(config)


def _vae(scale: float) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(32, 32, 64, 64),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        scaling_factor=scale,
    )
