"""A folder in diffusers' layout to networks without weights, and where each weight lies."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.initialization import no_init_weights

from sdgrpc.diffusion.checkpoints.stored import Stored, Unfilled, stored_tensors
from sdgrpc.errors import ModelError
from sdgrpc.regular_files import check_folder, read_regular

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
# How a component's weights are called, whole or in parts; the first that is there counts.
WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}
ENDINGS = (".safetensors", ".fp16.safetensors", ".bf16.safetensors")
INDICES = (".safetensors.index.json", ".safetensors.index.fp16.json", ".safetensors.index.bf16.json")
PICKLES = ("*.bin", "*.ckpt", "*.pt", "*.pth")
MAX_JSON_BYTES = 64 << 20
"""More than any index or configuration has."""
# Either of them holds a tokenizer's vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab.json")
# The first published folders name the VAE's attention so.
OLD_ATTENTION = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder.

    Raises:
        ModelError: the file is missing, is no JSON, or holds something else.

    """
    try:
        content = json.loads(read_regular(path, MAX_JSON_BYTES))
    except FileNotFoundError:
        raise ModelError(f"the model has no {path.parent.name}/{path.name} ({path}); download it") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object")
    return content


def read_index(folder: Path) -> dict[str, Any]:
    """The folder's model_index.json.

    Raises:
        ModelError: there is none, or it is of another architecture.

    """
    if not (folder / "model_index.json").is_file():
        files = sorted(folder.glob("*.safetensors"))
        hint = f"; a single checkpoint is named by its file, such as {files[0]}" if files else ""
        if (folder / "config.json").is_file():
            hint = "; if it is one component of a model, give the folder above it"
        raise ModelError(f"{folder} has no model_index.json, so it is no model in diffusers' layout{hint}")
    index = read_json(folder / "model_index.json")
    if "text_encoder_2" in index and not any(index.get("text_encoder") or ()):
        raise ModelError(
            f"{folder} is the SDXL refiner; only SDXL base and its inpainting variant are supported"
        )
    if "transformer" in index or "prior" in index:
        raise ModelError(
            f"{folder} is a {index.get('_class_name', 'model of another architecture')}; "
            "only Stable Diffusion 1, 2 and XL and their inpainting models are supported"
        )
    return index


def open_parts(
    folder: Path, index: Mapping[str, Any], *, without: Collection[str] = ()
) -> tuple[dict[str, Unfilled], dict[str, Any]]:
    """The networks and the tokenizers of a folder, each checked, no weights read, `without` some.

    Raises:
        ModelError: a component or a tensor is missing, broken or of another architecture.

    """
    classes = SDXL_COMPONENTS if "text_encoder_2" in index else COMPONENTS
    classes = {name: cls for name, cls in classes.items() if name not in without}
    for component, cls in classes.items():
        _check_listed(folder, component, index.get(component), cls)
    tokenizers = {name: _tokenizer(folder / name) for name, cls in classes.items() if cls is CLIPTokenizer}
    networks = {
        name: open_network(folder / name, name, cls)
        for name, cls in classes.items()
        if cls is not CLIPTokenizer
    }
    return networks, tokenizers


def _check_listed(folder: Path, component: str, listed: object, cls: type[Any]) -> None:
    """Refuse a component that the index leaves out or gives to a class we do not run."""
    if not isinstance(listed, list) or len(listed) != 2 or listed[1] is None:
        raise ModelError(f"{folder / 'model_index.json'} names no {component}; use a folder that has one")
    # Older folders name the tokenizer's fast and slow variants apart; they hold the same vocabulary.
    if str(listed[1]).removesuffix("Fast") != cls.__name__:
        raise ModelError(f"the {component} of {folder} is a {listed[1]}; only {cls.__name__} is supported")
    if not (folder / component).is_dir():
        raise ModelError(f"{folder} has no folder {component}, which its model_index.json names; download it")


def _tokenizer(place: Path) -> CLIPTokenizer:
    # Without both the library makes an empty tokenizer.
    if not any((place / file).is_file() for file in VOCABULARIES):
        raise ModelError(
            f"{place} holds no vocabulary: neither {' nor '.join(VOCABULARIES)}; download it again"
        )
    try:
        check_folder(place)
        return CLIPTokenizer.from_pretrained(place, local_files_only=True)
    except Exception as error:
        raise _unloadable("tokenizer", place, error) from error


def open_network(place: Path, component: str, cls: type[Any]) -> Unfilled:
    """One network of a folder, checked, no weights read.

    Raises:
        ModelError: a file or a tensor is missing, broken or of another architecture.

    """
    files = weight_files(place, WEIGHTS.get(component, "model"))
    try:
        module = _empty(place, cls)
    except Exception as error:
        # The libraries let through whatever a configuration's values lead to.
        raise _unloadable(component, place, error) from error
    tensors: dict[str, Stored] = {}
    for file in files:
        tensors |= stored_tensors(file)[0]
    return Unfilled(f"the {component} in {place}", module, named_for(module, tensors)).checked()


def _empty(place: Path, cls: type[Any]) -> nn.Module:
    """The network of a configuration, its parameters on the meta device."""
    with without_weights():
        if cls in (UNet2DConditionModel, AutoencoderKL):
            module: nn.Module = cls.from_config(read_json(place / "config.json"))
        else:
            read_json(place / "config.json")
            module = cls(CLIPTextConfig.from_pretrained(place, local_files_only=True))
    return module


@contextmanager
def without_weights() -> Iterator[None]:
    """Where networks are built on the meta device and no time is spent on their first values."""
    with init_empty_weights(include_buffers=False), no_init_weights():
        yield


def _unloadable(component: str, place: Path, error: Exception) -> ModelError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return ModelError(f"the {component} in {place} cannot be loaded: {reason[0]}")


def weight_files(place: Path, stem: str) -> Sequence[Path]:
    """The safetensors files of a component: whole before half precision, one file before several.

    Raises:
        ModelError: there are none, or one that the index names is missing.

    """
    for ending, parts in zip(ENDINGS, INDICES, strict=True):
        if (place / f"{stem}{ending}").is_file():
            return [place / f"{stem}{ending}"]
        if (place / f"{stem}{parts}").is_file():
            named = read_json(place / f"{stem}{parts}").get("weight_map")
            files = sorted({place / str(file) for file in named.values()}) if isinstance(named, dict) else []
            if lost := [file for file in files if file.parent != place or not file.is_file()]:
                raise ModelError(f"{place} lacks {lost[0].name}, which {stem}{parts} names; download it")
            if files:
                return files
    pickled = sorted(file.name for pattern in PICKLES for file in place.glob(pattern))
    if pickled:
        raise ModelError(
            f"the weights in {place} are pickled ({pickled[0]}), which could run code when they are read; "
            f"put {stem}.safetensors of the same model there, or convert them with safetensors' own tool"
        )
    raise ModelError(
        f"{place} has no weights: neither {stem}.safetensors nor {stem}.fp16.safetensors; download them"
    )


def named_for(module: nn.Module, tensors: Mapping[str, Stored]) -> dict[str, Stored]:
    """The tensors that `module` has, by its own names.

    transformers wraps CLIP in `text_model` in some versions only, and the first published VAEs name their
    attention in an older way, with convolutions of one pixel for matrices.
    """
    known = module.state_dict()
    wrapped = hasattr(module, "text_model")
    found: dict[str, Stored] = {}
    for key, tensor in tensors.items():
        name = key
        if isinstance(module, AutoencoderKL):
            for old, new in OLD_ATTENTION.items():
                name = name.replace(old, new)
        elif not isinstance(module, UNet2DConditionModel):
            bare = name.removeprefix("text_model.")
            name = bare if not wrapped or bare.startswith("text_projection.") else f"text_model.{bare}"
        if name in known:
            flat = known[name].ndim == 2 and tensor.ndim == 4 and tensor.shape[2:] == (1, 1)
            found[name] = tensor[:, :, 0, 0] if flat else tensor
    return found
