"""Tiny models in the original layout: a diffusers model's tensors under the names of the first releases."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from sdgrpc.diffusion.model import Model

Tensors = dict[str, torch.Tensor]
RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
OPEN_CLIP_ENDS = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
# What SD2's files must say in their metadata, by architecture.
STATED = {"sd2": {"modelspec.prediction_type": "epsilon"}, "sd2-v": {"modelspec.prediction_type": "v"}}


def save_original(
    model: Model, path: Path, metadata: dict[str, str] | None = None, **extra: torch.Tensor
) -> Path:
    """Write the model's tensors to one file in the layout of its base, `extra` beside them."""
    tensors = dict(original_unet(model.unet.state_dict(), model.unet.config.layers_per_block))
    tensors |= dict(original_vae(model.vae.state_dict(), len(model.vae.config.block_out_channels)))
    first = model.text_encoders["text_encoder"]
    if model.is_sdxl:
        tensors |= original_clip(first.state_dict(), "conditioner.embedders.0.transformer.")
        tensors |= _open_clip(model.text_encoders["text_encoder_2"], "conditioner.embedders.1.model.")
    elif first.config.hidden_act == "gelu":
        tensors |= _open_clip(first, "cond_stage_model.model.", unused_layer=True)
    else:
        tensors |= original_clip(first.state_dict(), "cond_stage_model.transformer.")
    save_file({name: tensor.contiguous() for name, tensor in (tensors | extra).items()}, path, metadata)
    return path


def _renamed(name: str, names: Mapping[str, str]) -> str:
    stem, _, kind = name.rpartition(".")
    return f"{names.get(stem, stem)}.{kind}"


def original_unet(state: Mapping[str, torch.Tensor], layers: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Levels of the diffusers model are counted through: input block 0 is the first convolution."""
    prefix = "model.diffusion_model."
    for name, tensor in state.items():
        found = re.match(r"(down|up)_blocks\.(\d+)\.(\w+)\.(\d+)\.(.+)", name)
        if found:
            side, level, kind, index, rest = found[1], int(found[2]), found[3], int(found[4]), found[5]
            attended = any(key.startswith(f"{side}_blocks.{level}.attentions") for key in state)
            place = _unet_place(side, level, kind, index, layers, attended)
            if kind == "resnets":
                rest = _renamed(rest, RESNET)
            elif kind == "downsamplers":
                rest = rest.replace("conv", "op")
            yield f"{prefix}{place}.{rest}", tensor
            continue
        found = re.match(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name)
        if found and found[1] == "resnets":
            yield f"{prefix}middle_block.{2 * int(found[2])}.{_renamed(found[3], RESNET)}", tensor
        elif found:
            yield f"{prefix}middle_block.1.{found[3]}", tensor
        else:
            yield prefix + _renamed(name, UNET_ENDS), tensor


def _unet_place(side: str, level: int, kind: str, index: int, layers: int, attended: bool) -> str:
    if side == "down":
        block = 1 + level * (layers + 1) + (layers if kind == "downsamplers" else index)
        return f"input_blocks.{block}.{1 if kind == 'attentions' else 0}"
    if kind == "upsamplers":
        return f"output_blocks.{level * (layers + 1) + layers}.{2 if attended else 1}"
    return f"output_blocks.{level * (layers + 1) + index}.{1 if kind == 'attentions' else 0}"


def original_vae(state: Mapping[str, torch.Tensor], levels: int) -> Iterator[tuple[str, torch.Tensor]]:
    """The decoder's levels are counted from the other end, and attention has 1x1 convolutions."""
    for name, tensor in state.items():
        spelled, value = name, tensor
        if found := re.match(r"(.+)\.mid_block\.attentions\.0\.(.+)", name):
            spelled = f"{found[1]}.mid.attn_1.{_renamed(found[2], VAE_ATTENTION)}"
            if "norm" not in found[2] and found[2].endswith("weight"):
                value = tensor[:, :, None, None]
        elif found := re.match(r"(.+)\.mid_block\.resnets\.(\d)\.(.+)", name):
            spelled = f"{found[1]}.mid.block_{int(found[2]) + 1}.{found[3]}"
        elif found := re.match(r"(.+)\.(down|up)_blocks\.(\d)\.(.+)", name):
            level = int(found[3]) if found[2] == "down" else levels - 1 - int(found[3])
            rest = found[4].replace("resnets", "block").replace("conv_shortcut", "nin_shortcut")
            rest = rest.replace("samplers.0", "sample")
            spelled = f"{found[1]}.{found[2]}.{level}.{rest}"
        spelled = spelled.replace("conv_norm_out", "norm_out")
        yield f"first_stage_model.{spelled}", value


def _bare(state: Mapping[str, torch.Tensor]) -> Tensors:
    return {name.removeprefix("text_model."): tensor for name, tensor in state.items()}


def original_clip(state: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    """OpenAI's CLIP, and a buffer that nothing uses."""
    positions = {f"{prefix}text_model.embeddings.position_ids": torch.arange(77)[None]}
    return positions | {f"{prefix}text_model.{name}": tensor for name, tensor in _bare(state).items()}


def _open_clip(encoder: nn.Module, prefix: str, *, unused_layer: bool = False) -> Tensors:
    """Query, key and value in one matrix; SD2's files have a last layer that nothing uses."""
    state = _bare(encoder.state_dict())
    tensors = {prefix + old: state[new] for new, old in OPEN_CLIP_ENDS.items()}
    if "text_projection.weight" in state:
        tensors[f"{prefix}text_projection"] = state["text_projection.weight"].T
    layers = encoder.config.num_hidden_layers
    for layer in range(layers + unused_layer):
        source, target = f"encoder.layers.{layer % layers}.", f"{prefix}transformer.resblocks.{layer}."
        for kind in ("weight", "bias"):
            joined = torch.cat([state[f"{source}self_attn.{one}_proj.{kind}"] for one in "qkv"])
            tensors[f"{target}attn.in_proj_{kind}"] = joined
            for new, old in OPEN_CLIP.items():
                tensors[f"{target}{old}.{kind}"] = state[f"{source}{new}.{kind}"].clone()
    return tensors
