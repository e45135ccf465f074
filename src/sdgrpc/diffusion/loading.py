"""A diffusers folder, a single checkpoint file, or the packaged default, to a Model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from sdgrpc.diffusion import hub, precision, single_file
from sdgrpc.diffusion.card import CARD, model_info, prediction_type
from sdgrpc.diffusion.model import Model
from sdgrpc.errors import ModelError

# The source that names the model packaged with sdgrpc.
EMBEDDED = "embedded"

# What a Stable Diffusion 1 or 2 folder is made of, and the classes that can be run.
COMPONENTS: Mapping[str, type[Any]] = {
    "tokenizer": CLIPTokenizer,
    "text_encoder": CLIPTextModel,
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
}
# What an SDXL folder has besides.
SDXL_COMPONENTS: Mapping[str, type[Any]] = {
    **COMPONENTS,
    "tokenizer_2": CLIPTokenizer,
    "text_encoder_2": CLIPTextModelWithProjection,
}

# Inputs of other kinds of UNet.
UNSUPPORTED = ("class_embed_type", "time_cond_proj_dim", "encoder_hid_dim_type")
# Original size, crop and target size, two numbers each.
SIZE_COUNT = 6


@dataclass(frozen=True, eq=False)
class _Loaded:
    """What a source holds; `parts` are components by diffusers' names, `card` is where its card may be."""

    parts: dict[str, Any]
    scheduler_config: dict[str, Any]
    card: Path
    force_zeros: bool


def load(
    name: str,
    source: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    tokenizer: Path | None = None,
) -> Model:
    """Load a model for inference and call it `name`.

    `source` is a folder in diffusers' layout with safetensors weights, a single `.safetensors` checkpoint in
    the original layout, a hub's `owner/name` (see `hub.fetch`), or `EMBEDDED`; what exists as a path is one.
    `dtype` is of the UNet and the text encoders; None is the device's own, see `precision`. `tokenizer` is a
    folder with CLIP's vocabulary for single files. Only a hub's name downloads anything.

    Raises:
        ModelError: the source, a component or a file is missing, broken or of another architecture.

    """
    embedded = str(source) == EMBEDDED
    place = embedded_folder() if embedded else _place(source)
    dtype = dtype or precision.automatic_dtype(place, device)
    with _no_progress_bars():
        if place.is_file():
            loaded = _load_file(place, device, dtype, tokenizer)
        else:
            loaded = _load_folder(place, device, dtype)
    parts = loaded.parts
    _check_networks(place, parts)
    return Model(
        info=model_info(name, loaded.card, parts, loaded.scheduler_config, embedded=embedded),
        tokenizers={key: part for key, part in parts.items() if key.startswith("tokenizer")},
        text_encoders={key: part for key, part in parts.items() if key.startswith("text_encoder")},
        unet=parts["unet"],
        vae=parts["vae"],
        scheduler_config=loaded.scheduler_config,
        device=device,
        dtype=dtype,
        force_zeros_for_empty_prompt=_is_sdxl(parts) and loaded.force_zeros,
    )


def _place(source: str | Path) -> Path:
    """The folder or file that a source names."""
    place = Path(source).expanduser()
    if not place.exists() and hub.is_name(str(source)):
        return hub.fetch(str(source))
    return place


def _load_file(path: Path, device: torch.device, dtype: torch.dtype, tokenizer: Path | None) -> _Loaded:
    card = path.with_suffix(f".{CARD}")
    stated = prediction_type(card)
    parts, scheduler_config = single_file.load_parts(
        path, device=device, dtype=dtype, tokenizer=tokenizer, prediction_type=stated
    )
    return _Loaded(parts, scheduler_config, card, force_zeros=True)


def _load_folder(folder: Path, device: torch.device, dtype: torch.dtype) -> _Loaded:
    index = _read_index(folder)
    parts = {
        component: _load_component(folder, component, cls, torch.float32 if component == "vae" else dtype)
        for component, cls in _component_classes(folder, index).items()
    }
    for part in parts.values():
        if isinstance(part, nn.Module):
            part.to(device)
    scheduler_config = read_json(folder / "scheduler" / "scheduler_config.json")
    stated = prediction_type(folder / CARD)
    if stated is not None:
        scheduler_config["prediction_type"] = stated
    # SDXL's pipelines set it unless the index says otherwise.
    force_zeros = index.get("force_zeros_for_empty_prompt") is not False
    return _Loaded(parts, scheduler_config, folder / CARD, force_zeros)


def embedded_folder() -> Path:
    """Where the packaged model lies."""
    return Path(__file__).resolve().parent.parent / "assets" / "tiny" / "model"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Raises:
        ModelError: the file is missing, is no JSON, or holds something else.

    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"the model has no {path.parent.name}/{path.name} ({path})") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content


def _read_index(folder: Path) -> dict[str, Any]:
    """The folder's model_index.json."""
    if not folder.is_dir():
        raise ModelError(
            f"{folder} is no folder or file; give a folder in diffusers' layout, a .safetensors checkpoint, "
            f"a hub's owner/name or {EMBEDDED!r}"
        )
    if not (folder / "model_index.json").is_file():
        raise ModelError(f"{folder} has no model_index.json, so it is no model in diffusers' layout")
    return read_json(folder / "model_index.json")


def _component_classes(folder: Path, index: Mapping[str, Any]) -> Mapping[str, type[Any]]:
    """The folder's components, after its index was checked for what can be run."""
    classes = SDXL_COMPONENTS if _is_sdxl(index) else COMPONENTS
    for component, cls in classes.items():
        _check_component(folder, component, index.get(component), cls)
    return classes


def _is_sdxl(components: Mapping[str, Any]) -> bool:
    return "text_encoder_2" in components


def _check_component(folder: Path, component: str, listed: object, cls: type[Any]) -> None:
    """Refuse a component that the index leaves out or gives to a class we do not run."""
    if not isinstance(listed, list) or len(listed) != 2 or listed[1] is None:
        raise ModelError(f"{folder / 'model_index.json'} names no {component}")
    # Older folders name the tokenizer's fast and slow variants apart; they hold the same vocabulary.
    if str(listed[1]).removesuffix("Fast") != cls.__name__:
        raise ModelError(f"the {component} of {folder} is a {listed[1]}; only {cls.__name__} is supported")
    if not (folder / component).is_dir():
        raise ModelError(f"{folder} has no folder {component}, which its model_index.json names")


def _check_networks(folder: Path, parts: Mapping[str, Any]) -> None:
    """Refuse a UNet that wants inputs, or a VAE that wants scaling, that we do not make."""
    unet, vae = parts["unet"].config, parts["vae"].config
    latent, given = vae["latent_channels"], unet["in_channels"]
    if given not in {latent, 2 * latent + 1}:
        wanted = f"{latent} (ordinary) or {2 * latent + 1} (inpainting)"
        raise ModelError(f"the unet of {folder} takes {given} channels; {wanted} are supported")
    added = "text_time" if _is_sdxl(parts) else None
    wanted_keys = {"addition_embed_type": added} | dict.fromkeys(UNSUPPORTED)
    for key, value in wanted_keys.items():
        if unet.get(key) != value:
            raise ModelError(
                f"the unet of {folder} has {key} = {unet.get(key)!r}; only {value!r} is supported"
            )
    if _is_sdxl(parts):
        pooled = parts["text_encoder_2"].config.projection_dim
        expected = SIZE_COUNT * unet["addition_time_embed_dim"] + pooled
        if unet["projection_class_embeddings_input_dim"] != expected:
            raise ModelError(
                f"the unet of {folder} does not take {SIZE_COUNT} sizes and {pooled} numbers of the prompt; "
                "only SDXL base and its inpainting variant are supported, not the refiner"
            )
    if vae.get("latents_mean") is not None:
        raise ModelError(f"the vae of {folder} has latents_mean, which is not supported")


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Keep the libraries' progress bars off a server's standard error."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _load_component(folder: Path, component: str, cls: type[Any], dtype: torch.dtype) -> Any:  # noqa: ANN401 - any of COMPONENTS
    """One component by its library's loader, its many kinds of failure told as one."""
    place = folder / component
    try:
        if cls is CLIPTokenizer:
            return cls.from_pretrained(place, local_files_only=True)
        options = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
        module, report = cls.from_pretrained(place, torch_dtype=dtype, **options)
    except Exception as error:
        # The libraries let through whatever the file's reader raises.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(f"the {component} in {place} cannot be loaded: {reason[0]}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise ModelError(f"the weights in {place} lack {len(missing)} tensors, {missing[0]} among them")
    return module.requires_grad_(False).eval()
