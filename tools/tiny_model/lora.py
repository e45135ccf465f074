"""Low-rank factors of a module's weight: made, fused, and written under three published spellings."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

Overlay = dict[str, torch.Tensor]


@dataclass
class Factor:
    """A module's down [r, in] or [r, in, kh, kw] and up [out, r]; the change is up @ down (alpha = rank)."""

    down: torch.Tensor
    up: torch.Tensor

    def delta(self) -> torch.Tensor:
        """The change of the weight at strength 1, in the weight's shape."""
        return (self.up @ self.down.flatten(1)).unflatten(1, self.down.shape[1:])


Factors = dict[str, Factor]


def targets(model: nn.Module, parts: Iterable[str]) -> list[str]:
    """The linear and convolution layers of a model whose dotted path contains one of `parts`."""
    layers = (name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
    return [name for name in layers if any(part in name for part in parts)]


def make(model: nn.Module, names: list[str], rank: int, generator: torch.Generator) -> Factors:
    """Fresh trainable factors: random down, zero up, so that training starts at the base."""
    factors = {}
    for name in names:
        weight = model.get_submodule(name).weight
        fan_in = weight[0].numel()
        down = torch.randn((rank, *weight.shape[1:]), generator=generator) / fan_in**0.5
        factors[name] = Factor(
            down.requires_grad_(True), torch.zeros(weight.shape[0], rank, requires_grad=True)
        )
    return factors


def parameters(factors: Factors) -> list[torch.Tensor]:
    """All trainable tensors of some factors."""
    return [tensor for factor in factors.values() for tensor in (factor.down, factor.up)]


def fuse(model: nn.Module, sets: list[tuple[Factors, float]]) -> Overlay:
    """W + sum of strength * change for every touched weight: an overlay, the model itself stays as it is."""
    overlay: Overlay = {}
    for factors, strength in sets:
        for name, factor in factors.items():
            key = f"{name}.weight"
            before = overlay.get(key, model.get_parameter(key))
            overlay[key] = before + strength * factor.delta()
    return overlay


def kohya(unet: Factors) -> Overlay:
    """The tensors under kohya's names: `lora_unet_mid_block_..._conv1.lora_down.weight`, with `.alpha`."""
    tensors: Overlay = {}
    for name, factor in unet.items():
        key = "lora_unet_" + name.replace(".", "_")
        kernel = (1,) * (factor.down.dim() - 2)
        tensors[f"{key}.lora_down.weight"] = factor.down
        tensors[f"{key}.lora_up.weight"] = factor.up.reshape(*factor.up.shape, *kernel)
        tensors[f"{key}.alpha"] = torch.tensor(float(len(factor.down)))
    return tensors


def peft(unet: Factors) -> Overlay:
    """The tensors under PEFT's names as diffusers saves them today: `unet.down_blocks.0....lora_A.weight`."""
    tensors: Overlay = {}
    for name, factor in unet.items():
        kernel = (1,) * (factor.down.dim() - 2)
        tensors[f"unet.{name}.lora_A.weight"] = factor.down
        tensors[f"unet.{name}.lora_B.weight"] = factor.up.reshape(*factor.up.shape, *kernel)
    return tensors


def diffusers(unet: Factors, text: Factors) -> Overlay:
    """The tensors under diffusers' older names: `unet.….lora.down.weight`, `….lora_linear_layer.…`."""
    tensors: Overlay = {}
    for name, factor in unet.items():
        kernel = (1,) * (factor.down.dim() - 2)
        tensors[f"unet.{name}.lora.down.weight"] = factor.down
        tensors[f"unet.{name}.lora.up.weight"] = factor.up.reshape(*factor.up.shape, *kernel)
    for name, factor in text.items():
        path = name if name.startswith("text_model.") else f"text_model.{name}"
        tensors[f"text_encoder.{path}.lora_linear_layer.down.weight"] = factor.down
        tensors[f"text_encoder.{path}.lora_linear_layer.up.weight"] = factor.up
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
            module, _, kind = (
                key.removesuffix(".weight").replace(".lora.", ".lora_linear_layer.").partition(".lora_")
            )
            if kind:
                side = "down" if kind in ("down", "A", "linear_layer.down") else "up"
                found.setdefault(module, {})[side] = file.get_tensor(key).float()
    sets: tuple[Factors, Factors] = ({}, {})
    for module, pair in found.items():
        factor = Factor(pair["down"], pair["up"].flatten(1))
        if module.startswith("text_encoder."):
            path_ = module.removeprefix("text_encoder.")
            sets[1][path_ if hasattr(text, "text_model") else path_.removeprefix("text_model.")] = factor
        else:
            sets[0][spelled.get(module, module.removeprefix("unet."))] = factor
    return sets
