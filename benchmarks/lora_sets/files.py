"""The LoRA files of the benchmark, in kohya's names: what trainers for Stable Diffusion 1.5 write most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "q_proj", "k_proj", "v_proj", "out_proj")
TRANSFORMER = (*ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "fc1", "fc2")
CONVOLUTIONS = (*TRANSFORMER, "conv1", "conv2", "conv_shortcut", "conv", "time_emb_proj")


@dataclass(frozen=True, slots=True)
class Kind:
    """What a file changes, at which rank."""

    name: str
    rank: int
    layers: tuple[str, ...]


SINGLE = Kind("rank-16 attention", 16, ATTENTION)
STACK = (SINGLE, Kind("rank-32 transformer", 32, TRANSFORMER), Kind("rank-8 convolutions", 8, CONVOLUTIONS))


def write(kind: Kind, components: Mapping[str, nn.Module], path: Path, seed: int) -> Path:
    """Write a file of that kind for the model; every seed is another file."""
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for component, module in components.items():
        prefix = "lora_unet_" if component == "unet" else f"{_encoder(component, components)}_text_model_"
        for name, layer in module.named_modules():
            if isinstance(layer, nn.Linear | nn.Conv2d) and name.endswith(
                tuple(f".{end}" for end in kind.layers)
            ):
                spelling = prefix + name.removeprefix("text_model.").replace(".", "_")
                out, inner, *kernel = layer.weight.shape
                ones = [1] * len(kernel)
                up = torch.randn(out, kind.rank, *ones, generator=generator) * 0.02
                down = torch.randn(kind.rank, inner, *kernel, generator=generator) * inner**-0.5
                tensors[f"{spelling}.lora_up.weight"] = up.half()
                tensors[f"{spelling}.lora_down.weight"] = down.half()
                tensors[f"{spelling}.alpha"] = torch.tensor(float(kind.rank) / 2)
    save_file(tensors, path)
    return path


def _encoder(component: str, components: Mapping[str, nn.Module]) -> str:
    """Kohya's name of a text encoder."""
    if component == "text_encoder_2":
        return "lora_te2"
    return "lora_te1" if "text_encoder_2" in components else "lora_te"
