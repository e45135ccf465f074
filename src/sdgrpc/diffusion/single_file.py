"""A single `.safetensors` checkpoint in the original layout to components, without any network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdgrpc.diffusion import original, vocabulary
from sdgrpc.diffusion.original import Layout
from sdgrpc.errors import ModelError

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
# How a zip archive and pickles of protocols 2 to 5 begin.
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """An open file: its layout, its base, and where its tensors go."""

    path: Path
    file: Any
    layout: Layout
    base: str
    device: torch.device
    dtype: torch.dtype

    def tensors(self, prefix: str) -> Tensors:
        """The tensors under `prefix`, still in the mapped file."""
        return {name: self.file.get_tensor(name) for name in self.layout.names(prefix)}


def load_parts(
    path: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    tokenizer: Path | None,
    prediction_type: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Components by their names in a diffusers folder, and the scheduler's configuration.

    Tensors that already have the dtype stay in the mapped file, which must not be written to while they are
    in use; others are converted straight from it. `prediction_type` overrides what the file says.

    Raises:
        ModelError: the file is pickled, broken, of another architecture, or says too little.

    """
    with _opened(path, device, dtype) as checkpoint:
        base = checkpoint.base
        metadata, names = checkpoint.file.metadata() or {}, checkpoint.layout.shapes
        stated = prediction_type or original.stated_prediction_type(metadata, names)
        if stated is None and base == "sd2":
            raise ModelError(
                f"{path} is a Stable Diffusion 2 checkpoint and does not say what it predicts; write "
                '{"prediction_type": "v_prediction"} (768 pixels) or {"prediction_type": "epsilon"} '
                f"(512 pixels, inpainting) to {path.stem}.sdgrpc.json beside it"
            )
        parts: dict[str, Any] = {name: build(checkpoint) for name, build in _builders(base).items()}
        if base == "sd2" and stated == "v_prediction":
            parts["unet"].register_to_config(sample_size=original.SD2_V_SAMPLE_SIZE)
        size = parts["text_encoder"].config.vocab_size
        parts |= vocabulary.load(path, base, size, given=tokenizer)
        zero_snr = "ztsnr" in names
    return parts, original.scheduler(base, stated or "epsilon", zero_snr=zero_snr)


@contextmanager
def _opened(path: Path, device: torch.device, dtype: torch.dtype) -> Iterator[Checkpoint]:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ModelError(_pickled(path))
    try:
        file = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        with path.open("rb") as start:
            pickled = start.read(4).startswith(PICKLE_STARTS)
        if pickled:
            raise ModelError(_pickled(path)) from error
        raise ModelError(f"{path} is no whole .safetensors file: {error}; download it again") from error
    with file as reader:
        layout = Layout({name: tuple(reader.get_slice(name).get_shape()) for name in reader.keys()})  # noqa: SIM118
        base = layout.base()
        if base is None:
            raise ModelError(
                f"{path} is {layout.stranger()}; single files can be Stable Diffusion 1, 2 or SDXL base"
            )
        yield Checkpoint(path, reader, layout, base, device, dtype)


def _pickled(path: Path) -> str:
    return (
        f"{path} is a pickled checkpoint, which could run code when it is read; "
        "use the .safetensors file of the same model, or convert it"
    )


def _builders(base: str) -> Mapping[str, Callable[[Checkpoint], nn.Module]]:
    """What makes each network of a base."""
    common = {"unet": _unet, "vae": _vae}
    if base == "sdxl":
        return {"text_encoder": _clip, "text_encoder_2": _open_clip, **common}
    return {"text_encoder": _clip if base == "sd15" else _open_clip, **common}


def _unet(checkpoint: Checkpoint) -> nn.Module:
    with _shapes_explained(checkpoint, "UNet"):
        config = checkpoint.layout.unet(checkpoint.base)
        tensors = convert_ldm_unet_checkpoint(checkpoint.tensors(original.UNET), config)
        with init_empty_weights(include_buffers=False):
            module = UNet2DConditionModel(**config)
    unknown = sorted(set(tensors) - set(module.state_dict()))
    if unknown:
        raise ModelError(f"the UNet of {checkpoint.path} has tensors of another architecture: {unknown[0]}")
    return _filled(checkpoint, "UNet", module, tensors, checkpoint.dtype)


def _vae(checkpoint: Checkpoint) -> nn.Module:
    if not checkpoint.layout.names(original.VAE):
        raise ModelError(f"{checkpoint.path} holds no VAE; use a file with the VAE baked in")
    with _shapes_explained(checkpoint, "VAE"):
        config = checkpoint.layout.vae(checkpoint.base)
        tensors = convert_ldm_vae_checkpoint(checkpoint.tensors(original.VAE), config)
        with init_empty_weights(include_buffers=False):
            module = AutoencoderKL(**config)
    return _filled(checkpoint, "VAE", module, tensors, torch.float32)


def _clip(checkpoint: Checkpoint) -> nn.Module:
    with _shapes_explained(checkpoint, "text encoder"):
        config = CLIPTextConfig(**checkpoint.layout.clip(checkpoint.base))
        tensors = convert_ldm_clip_checkpoint(checkpoint.tensors(original.CLIP[checkpoint.base]))
        with init_empty_weights(include_buffers=False):
            module = CLIPTextModel(config)
    return _filled(checkpoint, "text encoder", module, _named_for(module, tensors), checkpoint.dtype)


def _open_clip(checkpoint: Checkpoint) -> nn.Module:
    prefix = original.OPEN_CLIP[checkpoint.base]
    with _shapes_explained(checkpoint, "text encoder"):
        config = CLIPTextConfig(**checkpoint.layout.open_clip(checkpoint.base))
        with init_empty_weights(include_buffers=False):
            module = (CLIPTextModelWithProjection if checkpoint.base == "sdxl" else CLIPTextModel)(config)
        tensors = convert_open_clip_checkpoint(module, checkpoint.tensors(prefix), prefix=prefix)
    return _filled(checkpoint, "text encoder", module, _named_for(module, tensors), checkpoint.dtype)


@contextmanager
def _shapes_explained(checkpoint: Checkpoint, what: str) -> Iterator[None]:
    """Tell a layout that lacks what every checkpoint of its base has."""
    try:
        yield
    except (KeyError, IndexError) as error:
        raise ModelError(
            f"the {what} of {checkpoint.path} is incomplete or of another architecture: no {error}"
        ) from error


def _named_for(module: nn.Module, tensors: Tensors) -> Tensors:
    """The tensors that `module` has, with or without `text_model.` as this version of transformers spells."""
    wrapped = hasattr(module, "text_model")
    known = module.state_dict()
    spelled: Tensors = {}
    for name, tensor in tensors.items():
        bare = name.removeprefix("text_model.")
        outside = not wrapped or bare.startswith("text_projection.")
        spelled[bare if outside else f"text_model.{bare}"] = tensor
    return {name: tensor for name, tensor in spelled.items() if name in known}


def _filled(
    checkpoint: Checkpoint, what: str, module: nn.Module, tensors: Tensors, dtype: torch.dtype
) -> nn.Module:
    """`module` with these tensors in place of its empty ones, frozen."""
    known = module.state_dict()
    missing = sorted(set(known) - set(tensors))
    if missing:
        raise ModelError(
            f"the {what} of {checkpoint.path} lacks {len(missing)} tensors, {missing[0]} among them"
        )
    for name, expected in known.items():
        if tensors[name].shape != expected.shape:
            found = f"{list(tensors[name].shape)}, not {list(expected.shape)}"
            raise ModelError(f"the {what} of {checkpoint.path} is of another architecture: {name} is {found}")
    converted = {name: tensors[name].to(checkpoint.device, dtype) for name in known}
    module.load_state_dict(converted, assign=True)
    return module.to(checkpoint.device).requires_grad_(False).eval()
