"""LoRA sets on small models: files in two trainers' formats, and the same set fused by diffusers."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sdgrpc.diffusion.model import Model
from sdgrpc.domain import LoraRef
from tests.support.oracle import pipeline_of
from tests.support.tasks import task

# Attention, feed-forward and pointwise convolutions or their linear counterparts; what trainers change.
ENDINGS = ("to_q", "to_v", "to_out.0", "ff.net.2", "proj_in", "q_proj", "v_proj", "out_proj", "fc1")
KOHYA = {"text_encoder": "lora_te_", "text_encoder_2": "lora_te2_"}


def save_diffusers_lora(model: Model, path: Path) -> Path:
    """Write a LoRA in diffusers' names (PEFT's factors, no alpha) for the UNet and every text encoder."""
    tensors = {}
    for component, name, down, up in _factors(model, seed=0):
        tensors[f"{component}.{name}.lora_A.weight"] = down
        tensors[f"{component}.{name}.lora_B.weight"] = up
    save_file(tensors, path)
    return path


def save_kohya_lora(model: Model, path: Path, seed: int = 1) -> Path:
    """Write a LoRA in kohya's names, with an alpha of half the rank; every seed is another file."""
    prefixes = {"unet": "lora_unet_"} | KOHYA
    if model.is_sdxl:
        prefixes["text_encoder"] = "lora_te1_"
    tensors = {}
    for component, name, down, up in _factors(model, seed):
        key = prefixes[component] + name.replace(".", "_")
        tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        tensors[f"{key}.alpha"] = torch.tensor(2.0)
    save_file(tensors, path)
    return path


def _factors(model: Model, seed: int) -> Iterator[tuple[str, str, Tensor, Tensor]]:
    """Component, published name, and random factors (down, up) of rank 4 that change a weight by a fifth."""
    generator = torch.Generator().manual_seed(seed)
    for component, network in model.lora_components().items():
        for path, layer in network.named_modules():
            if path.endswith(ENDINGS) and isinstance(layer, (nn.Linear, nn.Conv2d)):
                weight = layer.weight
                kernel = weight.shape[2:]
                down = torch.randn((4, weight.shape[1], *kernel), generator=generator)
                up = torch.randn((weight.shape[0], 4, *(1 for _ in kernel)), generator=generator)
                up *= 0.2 * weight.norm() / (up.flatten(1) @ down.flatten(1)).norm()
                # transformers 5 dropped a level of names that files keep.
                bare = component == "unet" or path.startswith("text_model.")
                yield component, path if bare else f"text_model.{path}", down, up


def fused_by_diffusers(model: Model, folder: Path, refs: tuple[LoraRef, ...]) -> Model:
    """A copy of the model into which diffusers loaded and fused the set, its text encoders too."""
    fused = copy.copy(model)
    fused.unet = copy.deepcopy(model.unet)
    fused.text_encoders = {name: copy.deepcopy(one) for name, one in model.text_encoders.items()}
    components = ["unet", *fused.text_encoders]
    pipe = pipeline_of(fused, task())
    for ref in refs:
        pipe.load_lora_weights(folder, weight_name=f"{ref.name}.safetensors", adapter_name=ref.name)
    pipe.set_adapters([ref.name for ref in refs], [_weights(ref, components) for ref in refs])
    pipe.fuse_lora(components=components, adapter_names=[ref.name for ref in refs])
    pipe.unload_lora_weights()
    return fused


def _weights(ref: LoraRef, components: list[str]) -> Mapping[str, float]:
    """Strengths as `set_adapters` takes them."""
    return {name: ref.strength if name == "unet" else ref.text_encoder_strength for name in components}
