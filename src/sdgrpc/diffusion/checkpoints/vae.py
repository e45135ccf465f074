"""The VAE of a checkpoint, or one of its own: a folder or a single file in either layout.

Published files spell the attention of the original layout in several ways, with matrices or with convolutions
of one pixel; diffusers' own names come bare or after `vae.`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL
from diffusers.loaders.single_file_utils import convert_ldm_vae_checkpoint

from sdgrpc.diffusion.checkpoints.folder import named_for, open_network, read_json, without_weights
from sdgrpc.diffusion.checkpoints.ldm.layout import VAE, Layout, vae_config
from sdgrpc.diffusion.checkpoints.stored import Stored, Unfilled, stored_tensors
from sdgrpc.errors import ModelError
from sdgrpc.tensor_files.pickles import PICKLE_STARTS, PICKLE_SUFFIXES

SAMPLE_SIZE = 512
"""Side in pixels of what the published VAEs were trained on; tiles take it."""

ATTENTION: Mapping[str, str] = {
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
    "query": "q",
    "key": "k",
    "value": "v",
    "proj_attn": "proj_out",
    "group_norm": "norm",
}
"""How the attention's parts are spelled -> their names in the original layout."""

_ATTENTION = re.compile(
    r"(mid\.attn_1\.)(" + "|".join(map(re.escape, ATTENTION)) + r")(?=\.(?:weight|bias)$)"
)
_PREFIXES = (VAE, "vae.", "")
"""What stands before a VAE's names; the first that is there counts."""
_NEW_LEVEL = re.compile(r"encoder\.down_blocks\.(\d+)\.resnets\.(\d+)\.conv2\.weight$")


def convert(tensors: Mapping[str, Stored], config: Mapping[str, Any]) -> dict[str, Stored]:
    """Rename a VAE's tensors of the original layout, `first_stage_model.` before each, as diffusers does."""
    spelled = {
        _ATTENTION.sub(lambda found: found[1] + ATTENTION[found[2]], name): one
        for name, one in tensors.items()
    }
    converted: dict[str, Stored] = convert_ldm_vae_checkpoint(spelled, config)
    return converted


def open_vae(place: Path, *, scaling_factor: float) -> Unfilled:
    """Open a VAE of its own, no weights read.

    Args:
        place: a folder with the VAE's `config.json`, or the model's folder around it; or a .safetensors file,
            a whole checkpoint too.
        scaling_factor: of the model that it is for; a folder's configuration goes before it.

    Raises:
        ModelError: there is none, it is pickled, broken or of another architecture.

    """
    if place.is_dir():
        inner = place if (place / "config.json").is_file() else place / "vae"
        if not inner.is_dir():
            raise ModelError(f"{place} is no VAE's folder: it has neither a config.json nor a folder vae")
        named = read_json(inner / "config.json").get("_class_name", AutoencoderKL.__name__)
        if named != AutoencoderKL.__name__:
            raise ModelError(f"the VAE in {inner} is a {named}; only {AutoencoderKL.__name__} is supported")
        return open_network(inner, "vae", AutoencoderKL)
    if not place.is_file():
        raise ModelError(
            f"the VAE {place} is no folder or file; give a VAE's folder or its .safetensors file"
        )
    return _open_file(place, scaling_factor)


def _open_file(path: Path, scaling_factor: float) -> Unfilled:
    with path.open("rb") as start:
        is_pickle = start.read(4).startswith(PICKLE_STARTS) or path.suffix.lower() in PICKLE_SUFFIXES
    if is_pickle:
        raise ModelError(
            f"the VAE {path} is pickled, which could run code when it is read; use its .safetensors file"
        )
    stored = stored_tensors(path)[0]
    prefix = next(prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in stored))
    tensors = {name.removeprefix(prefix): one for name, one in stored.items() if name.startswith(prefix)}
    try:
        if any(name.startswith("encoder.down_blocks.") for name in tensors):
            config = _config_by_new_names({name: one.shape for name, one in tensors.items()}, scaling_factor)
        else:
            tensors = {VAE + name: one for name, one in tensors.items()}
            config = Layout({name: one.shape for name, one in tensors.items()}).vae(
                scaling_factor, SAMPLE_SIZE
            )
            tensors = convert(tensors, config)
        with without_weights():
            module = AutoencoderKL(**config)
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(
            f"{path} holds no VAE of Stable Diffusion 1, 2 or XL (an AutoencoderKL): "
            f"{error} is missing or wrong"
        ) from error
    return Unfilled(f"the VAE {path}", module, named_for(module, tensors)).checked()


def _config_by_new_names(shapes: Mapping[str, tuple[int, ...]], scaling_factor: float) -> dict[str, Any]:
    """Return the configuration of a VAE whose tensors have diffusers' names."""
    found = [match for name in shapes if (match := _NEW_LEVEL.match(name))]
    levels = 1 + max(int(match[1]) for match in found)
    return vae_config(
        [shapes[f"encoder.down_blocks.{level}.resnets.0.conv2.weight"][0] for level in range(levels)],
        1 + max(int(match[2]) for match in found),
        shapes["decoder.conv_in.weight"][1],
        scaling_factor,
        SAMPLE_SIZE,
    )
