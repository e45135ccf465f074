"""Tiny random Stable Diffusion models as diffusers folders: the real layout, a few hundred kB."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

# Latents of the tiny models are 8x8: pictures of 64x64 pixels.
SIDE = 64

# Stable Diffusion 1.5's own scheduler configuration.
SD15_SCHEDULER: dict[str, Any] = {
    "_class_name": "PNDMScheduler",
    "_diffusers_version": "0.6.0",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "trained_betas": None,
}

# SDXL base's own.
SDXL_SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "clip_sample": False,
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "sample_max_value": 1.0,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "use_karras_sigmas": False,
}


def save_model(
    folder: Path,
    *,
    prediction_type: str = "epsilon",
    inpainting: bool = False,
    width: int = 32,
    seed: int = 0,
    card: dict[str, Any] | None = None,
) -> Path:
    """Write a random model with SD1's structure to `folder` and return it.

    `inpainting` gives the UNet 9 input channels, `width` is the text encoder's and the cross-attention's,
    `seed` makes the weights, `card` goes into sdgrpc.json over a default.
    """
    torch.manual_seed(seed)
    tokenizer = tiny_tokenizer()
    parts = {
        "tokenizer": tokenizer,
        "text_encoder": _text_encoder(tokenizer, width),
        "unet": _unet(9 if inpainting else 4, width),
        "vae": _vae(),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionInpaintPipeline" if inpainting else "StableDiffusionPipeline",
        "feature_extractor": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", SD15_SCHEDULER["_class_name"]],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    write_json(folder / "model_index.json", index)
    write_json(
        folder / "scheduler" / "scheduler_config.json", SD15_SCHEDULER | {"prediction_type": prediction_type}
    )
    write_json(folder / "sdgrpc.json", _card() | (card or {}))
    return folder


def save_sdxl_model(
    folder: Path, *, inpainting: bool = False, force_zeros: bool = True, seed: int = 0
) -> Path:
    """Write a random model with SDXL's structure to `folder` and return it.

    Its text encoders have 32 and 48 channels, which the UNet attends to side by side, and the second pools to
    24. `force_zeros` is the index's word on empty negative prompts.
    """
    torch.manual_seed(seed)
    tokenizer, second_tokenizer = tiny_tokenizer(), tiny_tokenizer()
    second_tokenizer.pad_token = "!"
    second_config = _text_config(tokenizer, 48)
    second_config.projection_dim = 24
    parts = {
        "tokenizer": tokenizer,
        "tokenizer_2": second_tokenizer,
        "text_encoder": _text_encoder(tokenizer, 32),
        "text_encoder_2": CLIPTextModelWithProjection(second_config),
        "unet": _sdxl_unet(9 if inpainting else 4),
        "vae": _vae(scaling_factor=0.13025),
    }
    for name, part in parts.items():
        part.save_pretrained(folder / name)
    index = {
        "_class_name": "StableDiffusionXLInpaintPipeline" if inpainting else "StableDiffusionXLPipeline",
        "force_zeros_for_empty_prompt": force_zeros,
        "scheduler": ["diffusers", SDXL_SCHEDULER["_class_name"]],
    } | {name: ["-", type(part).__name__] for name, part in parts.items()}
    write_json(folder / "model_index.json", index)
    write_json(folder / "scheduler" / "scheduler_config.json", SDXL_SCHEDULER)
    write_json(folder / "sdgrpc.json", _card())
    return folder


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows every byte and a few whole words."""
    # The printable stand-ins for bytes that byte-level BPE uses.
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(b) for b in kept] + [chr(256 + i) for i in range(256 - len(kept))]
    tokens = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in ("cat", "dog", "red", "blue"):
        left = word[0]
        for at, letter in enumerate(word[1:], start=2):
            right = letter + ("</w>" if at == len(word) else "")
            merges.append((left, right))
            left += right
            tokens.append(left)
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def _text_encoder(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModel:
    return CLIPTextModel(_text_config(tokenizer, width))


def _text_config(tokenizer: CLIPTokenizer, width: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Prompts must matter: the usual 0.02 makes all texts nearly equal.
        initializer_factor=4.0,
    )


def _unet(in_channels: int, width: int) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=width,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def _sdxl_unet(in_channels: int) -> UNet2DConditionModel:
    """Three levels of 0, 1 and 2 transformer blocks, linear projections, time and text added."""
    return UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=in_channels,
        out_channels=4,
        block_out_channels=(8, 16, 16),
        layers_per_block=2,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 1, 2),
        cross_attention_dim=80,
        attention_head_dim=(2, 4, 4),
        norm_num_groups=4,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 24,
    )


def _vae(**config: Any) -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(8, 8, 16, 16),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
        **config,
    )


def _card() -> dict[str, Any]:
    return {
        "title": "Tiny random model",
        "description": "For tests.",
        "default_steps": 4,
        "default_guidance_scale": 3.0,
        "latent_rgb_factors": [[0.3, 0.0, 0.0], [0.0, 0.3, 0.0], [0.0, 0.0, 0.3], [0.1, 0.1, 0.1]],
        "latent_rgb_bias": [0.0, 0.1, -0.1],
    }
