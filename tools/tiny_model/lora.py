"""Factors of modules' weights fused into a model, and written under three published spellings."""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from .factors import Factor, Factors, make, of_tensors, parameters

__all__ = [
    "Factor",
    "Factors",
    "Overlay",
    "diffusers",
    "fuse",
    "kohya",
    "make",
    "parameters",
    "peft",
    "read",
    "targets",
]

Overlay = dict[str, torch.Tensor]
SPELLINGS = {
    ".lora_A.weight": "lora_down.weight",
    ".lora_B.weight": "lora_up.weight",
    ".lora.down.weight": "lora_down.weight",
    ".lora.up.weight": "lora_up.weight",
    ".lora_linear_layer.down.weight": "lora_down.weight",
    ".lora_linear_layer.up.weight": "lora_up.weight",
}
"""Endings of PEFT's and diffusers' keys -> what kohya calls the same."""


def targets(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """The linear and convolution layers of a model whose dotted path contains one of `parts`."""
    layers = (name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return [name for name in layers if any(part in name for part in parts)]


def fuse(model: nn.Module, sets: list[tuple[Factors, float]]) -> Overlay:
    """W + sum of strength * change for every touched weight: an overlay, the model itself stays as it is.

    Each change is that of the untouched W, so the order of the sets means nothing.
    """
    overlay: Overlay = {}
    for factors, strength in sets:
        for name, factor in factors.items():
            key = f"{name}.weight"
            weight = model.get_parameter(key)
            overlay[key] = overlay.get(key, weight) + strength * factor.change(weight)
    return overlay


def kohya(unet: Factors) -> Overlay:
    """The tensors under kohya's names: `lora_unet_mid_block_..._conv1.lora_down.weight`, with `.alpha`."""
    return {
        f"lora_unet_{name.replace('.', '_')}.{suffix}": tensor
        for name, factor in unet.items()
        for suffix, tensor in factor.tensors().items()
    }


def peft(unet: Factors) -> Overlay:
    """The tensors under PEFT's names as diffusers saves them today: `unet.down_blocks.0....lora_A.weight`."""
    tensors: Overlay = {}
    for name, factor in unet.items():
        pair = factor.tensors()
        tensors[f"unet.{name}.lora_A.weight"] = pair["lora_down.weight"]
        tensors[f"unet.{name}.lora_B.weight"] = pair["lora_up.weight"]
    return tensors


def diffusers(unet: Factors, text: Factors) -> Overlay:
    """The tensors under diffusers' older names: `unet.….lora.down.weight`, `….lora_linear_layer.…`."""
    tensors: Overlay = {}
    for name, factor in unet.items():
        pair = factor.tensors()
        tensors[f"unet.{name}.lora.down.weight"] = pair["lora_down.weight"]
        tensors[f"unet.{name}.lora.up.weight"] = pair["lora_up.weight"]
    for name, factor in text.items():
        path, pair = name if name.startswith("text_model.") else f"text_model.{name}", factor.tensors()
        tensors[f"text_encoder.{path}.lora_linear_layer.down.weight"] = pair["lora_down.weight"]
        tensors[f"text_encoder.{path}.lora_linear_layer.up.weight"] = pair["lora_up.weight"]
    return tensors


def write(tensors: Overlay, metadata: dict[str, str], path: Path) -> None:
    """Write the tensors in float16 with a trainer's metadata."""
    halves = {key: tensor.detach().to(torch.float16).contiguous() for key, tensor in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(halves, path, metadata=metadata)
    path.chmod(0o644)


def read(path: Path, unet: nn.Module, text: nn.Module) -> tuple[Factors, Factors]:
    """The factors (of the UNet, of the text encoder) of a file that `write` wrote, in float32."""
    spelled = {"lora_unet_" + name.replace(".", "_"): name for name, _ in unet.named_modules()}
    found: dict[str, dict[str, torch.Tensor]] = {}
    with safe_open(path, "pt") as file:
        for key in file.keys():  # noqa: SIM118 - safe_open is no mapping
            module, suffix = _split(key)
            found.setdefault(module, {})[suffix] = file.get_tensor(key).float()
    sets: tuple[Factors, Factors] = ({}, {})
    for module, tensors in found.items():
        if module.startswith("text_encoder."):
            name = module.removeprefix("text_encoder.")
            name = name if hasattr(text, "text_model") else name.removeprefix("text_model.")
            sets[1][name] = of_tensors(tensors)
        else:
            sets[0][spelled.get(module, module.removeprefix("unet."))] = of_tensors(tensors)
    return sets


def _split(key: str) -> tuple[str, str]:
    """A key's module and its suffix as kohya spells it."""
    for ending, suffix in SPELLINGS.items():
        if key.endswith(ending):
            return key.removesuffix(ending), suffix
    module, _, suffix = key.partition(".")
    return module, suffix
