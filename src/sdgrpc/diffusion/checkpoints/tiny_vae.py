"""Tiny decoders (TAESD's kind): a folder or a single file, as published, to the network that decodes.

They take latents as the UNet has them and give pixels from -1 to 1. Of a file with an encoder only the
decoder is read. Names are diffusers' (`decoder.layers.N`), or the first publication's (`N`, where 0 clamps).
Source: https://github.com/madebyollin/taesd and diffusers' AutoencoderTiny.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import AutoencoderTiny
from huggingface_hub import snapshot_download
from torch import nn

from sdgrpc.diffusion.checkpoints import hub
from sdgrpc.diffusion.checkpoints.folder import read_json, weight_files, without_weights
from sdgrpc.diffusion.checkpoints.loading import OpenModel
from sdgrpc.diffusion.checkpoints.stored import Stored, Unfilled, stored_tensors
from sdgrpc.embedded import EMBEDDED, embedded_folder
from sdgrpc.errors import ModelError

STEM = "diffusion_pytorch_model"
_DIFFUSERS = "decoder.layers."
_FIRST = re.compile(r"(?:decoder\.)?(\d+)\.(.+)")


def with_tiny_vae(model: OpenModel, source: str) -> OpenModel:
    """The model with a tiny decoder beside its VAE.

    Args:
        model: the model.
        source: a folder with a `config.json`, a .safetensors file, a hub's `owner/name`, or `embedded`
            for the one of the embedded model.

    Raises:
        ModelError: there is none, it is broken, of another architecture, or for other latents.

    """
    place = _place(source)
    tensors, what = _tensors(place)
    decoder = Unfilled(what, _network(tensors, what), tensors).checked()
    channels = decoder.tensors["layers.0.weight"].shape[1]
    if channels != model.info.latent_channels:
        raise ModelError(
            f"{what} is for latents of {channels} channels; the model {model.info.name} has "
            f"{model.info.latent_channels}"
        )
    return replace(model, info=replace(model.info, tiny_decoder=True), tiny=decoder)


def _place(source: str) -> Path:
    if source == EMBEDDED:
        return embedded_folder().parent / "decoder"
    place = Path(source).expanduser()
    if not place.exists() and hub.is_name(source):
        try:
            return Path(snapshot_download(source, allow_patterns=["config.json", f"{STEM}.safetensors"]))
        except Exception as error:  # the library has a class for each of its failures
            raise ModelError(f"the tiny VAE {source} is neither here nor to be had: {error}") from error
    if not place.exists():
        raise ModelError(f"the tiny VAE {source} is no folder, file, hub's owner/name or {EMBEDDED!r}")
    return place


def _tensors(place: Path) -> tuple[dict[str, Stored], str]:
    """The decoder's tensors as `layers.N…`, and what to call it."""
    what = f"the tiny VAE {place}"
    if place.is_dir():
        named = read_json(place / "config.json").get("_class_name", AutoencoderTiny.__name__)
        if named != AutoencoderTiny.__name__:
            raise ModelError(f"{what} is a {named}; only {AutoencoderTiny.__name__} is supported")
        stored = {
            key: one for file in weight_files(place, STEM) for key, one in stored_tensors(file)[0].items()
        }
    else:
        stored = stored_tensors(place)[0]
    found = {}
    for key, tensor in stored.items():
        first = _FIRST.fullmatch(key)
        if key.startswith(_DIFFUSERS):
            found[f"layers.{key.removeprefix(_DIFFUSERS)}"] = tensor
        elif first is not None:  # the clamp comes first there
            found[f"layers.{int(first[1]) - 1}.{first[2]}"] = tensor
    if "layers.0.weight" not in found:
        raise ModelError(f"{what} holds no tiny decoder: neither {_DIFFUSERS}0.weight nor 1.weight is there")
    return found, what


def _network(tensors: Mapping[str, Stored], what: str) -> nn.Module:
    """The decoder whose blocks these are; each stage but the last doubles the sides."""
    width, channels = tensors["layers.0.weight"].shape[:2]
    blocks, at, stage = [], 2, 0
    while f"layers.{at}.bias" not in tensors:
        if f"layers.{at}.conv.0.weight" in tensors:
            stage, at = stage + 1, at + 1
        elif f"layers.{at + 1}.weight" in tensors:
            blocks.append(stage)
            stage, at = 0, at + 2
        else:
            raise ModelError(f"{what} is of another architecture: layers.{at} is neither block nor end")
    blocks.append(stage)
    with without_weights(), torch.no_grad():
        tiny = AutoencoderTiny(
            latent_channels=channels,
            decoder_block_out_channels=(width,) * len(blocks),
            num_decoder_blocks=tuple(blocks),
        )
    decoder: nn.Module = tiny.decoder
    return decoder
