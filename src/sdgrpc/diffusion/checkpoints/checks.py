"""Whether the networks of a model go together, and are of a kind that can be run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from sdgrpc.errors import ModelError

# Inputs of other kinds of UNet.
UNSUPPORTED = ("class_embed_type", "time_cond_proj_dim", "encoder_hid_dim_type")
# Original size, crop and target size, two numbers each.
SIZE_COUNT = 6


def is_sdxl(components: Mapping[str, Any]) -> bool:
    """SDXL alone has two text encoders."""
    return "text_encoder_2" in components


def check_networks(place: Path, modules: Mapping[str, nn.Module]) -> None:
    """Refuse a UNet that wants inputs, or a VAE that wants scaling, that we do not make.

    Raises:
        ModelError: names what does not fit.

    """
    configs: dict[str, Any] = {name: module.config for name, module in modules.items()}
    unet, vae = configs["unet"], configs["vae"]
    latent, given = vae["latent_channels"], unet["in_channels"]
    if given not in {latent, 2 * latent + 1}:
        wanted = f"{latent} (ordinary) or {2 * latent + 1} (inpainting)"
        raise ModelError(f"the unet of {place} takes {given} channels; {wanted} are supported")
    added = "text_time" if is_sdxl(modules) else None
    wanted_keys = {"addition_embed_type": added} | dict.fromkeys(UNSUPPORTED)
    for key, value in wanted_keys.items():
        if unet.get(key) != value:
            raise ModelError(
                f"the unet of {place} has {key} = {unet.get(key)!r}; only {value!r} is supported"
            )
    if is_sdxl(modules):
        _check_sizes(place, unet, configs["text_encoder_2"].projection_dim)
    if vae.get("latents_mean") is not None:
        raise ModelError(f"the vae of {place} has latents_mean, which is not supported")
    _check_widths(place, configs)


def _check_sizes(place: Path, unet: Mapping[str, Any], pooled: int) -> None:
    expected = SIZE_COUNT * unet["addition_time_embed_dim"] + pooled
    if unet["projection_class_embeddings_input_dim"] != expected:
        raise ModelError(
            f"the unet of {place} does not take {SIZE_COUNT} sizes and {pooled} numbers of the prompt; "
            "only SDXL base and its inpainting variant are supported, not the refiner"
        )


def _check_widths(place: Path, configs: Mapping[str, Any]) -> None:
    """Refuse a text encoder of another base than the UNet's."""
    widths = [config.hidden_size for name, config in configs.items() if name.startswith("text_encoder")]
    attended = configs["unet"]["cross_attention_dim"]
    if sum(widths) != attended:
        given = " + ".join(str(width) for width in widths)
        raise ModelError(
            f"the unet of {place} attends to texts of width {attended}, and its text encoder gives {given}: "
            "they are of different models; put the text encoder of the UNet's own model there"
        )


def check_vocabulary(place: Path, tokenizers: Mapping[str, Any], modules: Mapping[str, nn.Module]) -> None:
    """Refuse a tokenizer whose tokens its text encoder does not know.

    Raises:
        ModelError: names the tokenizer and both counts.

    """
    for name, tokenizer in tokenizers.items():
        config: Any = modules[name.replace("tokenizer", "text_encoder")].config
        if len(tokenizer) > config.vocab_size:
            raise ModelError(
                f"the {name} of {place} has {len(tokenizer)} tokens and its text encoder knows "
                f"{config.vocab_size}: they are of different models"
            )
