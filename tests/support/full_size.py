"""Stable Diffusion 1.5 at its real size with random weights, in both layouts, written a tensor at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import load_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.support.models import SD15_SCHEDULER, tiny_tokenizer
from tests.support.original import original_clip, original_unet, original_vae

NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}


def save_full_size(
    folder: Path, dtype: torch.dtype, tokenizer: CLIPTokenizer | None = None, narrower: int = 1
) -> Path:
    """Write a folder in diffusers' layout with weights of `dtype`, 1.07 billion of them, and return it."""
    tokenizer = tokenizer or tiny_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    generator = torch.Generator().manual_seed(0)
    with init_empty_weights():
        networks = full_size_networks(tokenizer, narrower)
    for name, network in networks.items():
        (network.save_config if name != "text_encoder" else network.config.save_pretrained)(folder / name)
        tensors = {key: tuple(one.shape) for key, one in network.state_dict().items()}

        def make(key: str, shapes: Mapping[str, tuple[int, ...]] = tensors) -> torch.Tensor:
            return random_weight(key, shapes[key], generator)

        write(folder / name / FILES[name], tensors, make, dtype)
    classes = {"tokenizer": tokenizer} | networks
    libraries = {"unet": "diffusers", "vae": "diffusers"}
    index: dict[str, Any] = {
        name: [libraries.get(name, "transformers"), type(part).__name__] for name, part in classes.items()
    }
    index |= {"scheduler": ["diffusers", "PNDMScheduler"], "safety_checker": [None, None]}
    index |= {"feature_extractor": [None, None], "_class_name": "StableDiffusionPipeline"}
    (folder / "model_index.json").write_text(json.dumps(index | {"requires_safety_checker": False}))
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(SD15_SCHEDULER))
    return folder


def save_full_size_file(folder: Path, path: Path) -> Path:
    """Write the same weights to one file in the original layout and return it."""
    states = {name: load_file(folder / name / file) for name, file in FILES.items()}  # mapped, not read
    tensors = dict(original_unet(states["unet"], 2)) | dict(original_vae(states["vae"], 4))
    tensors |= original_clip(states["text_encoder"], "cond_stage_model.transformer.")
    kept = {key: tensor for key, tensor in tensors.items() if tensor.is_floating_point()}
    shapes = {key: tuple(tensor.shape) for key, tensor in kept.items()}
    return write(path, shapes, kept.__getitem__, states["unet"]["conv_in.weight"].dtype)


def write(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    make: Callable[[str], torch.Tensor],
    dtype: torch.dtype,
) -> Path:
    """Write a safetensors file whose tensors are made one by one, so that little memory is needed."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for key, shape in shapes.items():
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for key in shapes:
            file.write(make(key).to(dtype).contiguous().view(-1).view(torch.uint8).numpy())
    return path


def random_weight(key: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    """Weights of the usual spread, no biases, and norms that change nothing."""
    if key.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    spread = 1.0 if "embedding" in key and "time" not in key else math.prod(shape[1:]) ** -0.5
    return torch.empty(shape).uniform_(-spread, spread, generator=generator)


def full_size_networks(tokenizer: CLIPTokenizer, narrower: int = 1) -> dict[str, nn.Module]:
    """Networks in the published configurations but for the vocabulary, with new random weights.

    The UNet and the VAE have a `narrower`-th of the published channels. Inside accelerate's
    `init_empty_weights` they have no weights and take no memory.
    """
    # diffusers' defaults are the published configuration but for these.
    unet = UNet2DConditionModel(
        sample_size=64,
        cross_attention_dim=768,
        attention_head_dim=8,
        block_out_channels=tuple(width // narrower for width in (320, 640, 1280, 1280)),
    )
    vae = AutoencoderKL(
        block_out_channels=tuple(width // narrower for width in (128, 256, 512, 512)),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=512,
    )
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=768,
            intermediate_size=3072,
            num_hidden_layers=12,
            num_attention_heads=12,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return {"text_encoder": encoder, "unet": unet, "vae": vae}
