"""A single `.safetensors` checkpoint in the original layout to components, without any network."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sdgrpc.diffusion.checkpoints import foreign, vae, vocabulary
from sdgrpc.diffusion.checkpoints.folder import named_for, without_weights
from sdgrpc.diffusion.checkpoints.ldm import layout as ldm
from sdgrpc.diffusion.checkpoints.ldm import scheduler
from sdgrpc.diffusion.checkpoints.ldm.layout import Layout
from sdgrpc.diffusion.checkpoints.stored import Stored, Unfilled, stored_tensors
from sdgrpc.errors import ModelError
from sdgrpc.regular_files import open_regular
from sdgrpc.tensor_files.pickles import PICKLE_STARTS, PICKLE_SUFFIXES

# What converters that keep a training state's nesting put before every name.
WRAPPING = "state_dict."
# The tensors by which models of SDXL's structure mark EDM's noise schedule: Playground 2.5's and CosXL's.
EDM = frozenset({"edm_mean", "edm_vpred.sigma_max"})


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A file's tensors, its layout and its base."""

    path: Path
    stored: Mapping[str, Stored]
    metadata: Mapping[str, str]
    layout: Layout
    base: str

    def tensors(self, prefix: str) -> dict[str, Stored]:
        """The tensors under `prefix`, unread."""
        return {name: self.stored[name] for name in self.layout.names(prefix)}


def open_parts(
    path: Path, *, tokenizer: Path | None, prediction_type: str | None, own_vae: Path | None = None
) -> tuple[dict[str, Unfilled], dict[str, Any], dict[str, Any]]:
    """Networks and tokenizers by their names in a diffusers folder, and the scheduler's configuration.

    No weights are read. `prediction_type` overrides what the file says, `own_vae` the VAE in it.

    Raises:
        ModelError: the file is pickled, broken, of another architecture, or says too little.

    """
    checkpoint = _open(path)
    base, names = checkpoint.base, checkpoint.layout.shapes
    stated = prediction_type or scheduler.stated_prediction_type(checkpoint.metadata, names)
    if stated is None and base == "sd2":
        raise ModelError(
            f"{path} is a Stable Diffusion 2 checkpoint and does not say what it predicts; write "
            '{"prediction_type": "v_prediction"} (768 pixels) or {"prediction_type": "epsilon"} '
            f"(512 pixels, inpainting) to {path.stem}.sdgrpc.json beside it"
        )
    networks = {name: build(checkpoint).checked() for name, build in _builders(base, own_vae).items()}
    if base == "sd2" and stated == "v_prediction":
        unet: Any = networks["unet"].module
        unet.register_to_config(sample_size=ldm.SD2_V_SAMPLE_SIZE)
    encoder: Any = networks["text_encoder"].module
    tokenizers = vocabulary.load(path, base, encoder.config.vocab_size, given=tokenizer)
    return networks, tokenizers, scheduler.published(base, stated or "epsilon", zero_snr="ztsnr" in names)


def _open(path: Path) -> Checkpoint:
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise ModelError(_pickled(path))
    with open_regular(path) as start:
        if start.read(4).startswith(PICKLE_STARTS):
            raise ModelError(_pickled(path))
    named, metadata = stored_tensors(path)
    stored = {name.removeprefix(WRAPPING): tensor for name, tensor in named.items()}
    layout = Layout({name: tensor.shape for name, tensor in stored.items()})
    base = layout.base()
    if base is None:
        raise ModelError(
            f"{path} is {foreign.describe(stored)}; single files can be Stable Diffusion 1, 2 or SDXL base"
        )
    if others := sorted(EDM & stored.keys()):
        raise ModelError(
            f"{path} was trained on another noise schedule (EDM: it has {others[0]}), which is not supported"
        )
    return Checkpoint(path, stored, metadata, layout, base)


def _pickled(path: Path) -> str:
    return (
        f"{path} is a pickled checkpoint, which could run code when it is read; "
        "use the .safetensors file of the same model, or convert it"
    )


def _builders(base: str, own_vae: Path | None) -> Mapping[str, Callable[[Checkpoint], Unfilled]]:
    """What makes each network of a base."""

    def given_vae(_: Checkpoint) -> Unfilled:
        assert own_vae is not None  # noqa: S101 - else it is not called
        return vae.open_vae(own_vae, scaling_factor=ldm.VAE_SCALES[base])

    common = {"unet": _unet, "vae": given_vae if own_vae else _vae}
    if base == "sdxl":
        return {"text_encoder": _clip, "text_encoder_2": _open_clip, **common}
    return {"text_encoder": _clip if base == "sd15" else _open_clip, **common}


def _unet(checkpoint: Checkpoint) -> Unfilled:
    with _shapes_explained(checkpoint, "UNet"):
        config = checkpoint.layout.unet(checkpoint.base)
        source = checkpoint.tensors(ldm.UNET)
        tensors = convert_ldm_unet_checkpoint(source, config)
        with without_weights():
            module = UNet2DConditionModel(**config)
    # What diffusers' conversion leaves out, as unCLIP's image embedding, and what it cannot place.
    known = module.state_dict().keys()
    used = {tensor.key for name, tensor in tensors.items() if name in known}
    unknown = sorted(tensor.key for tensor in source.values() if tensor.key not in used)
    if unknown:
        raise ModelError(f"the UNet of {checkpoint.path} has tensors of another architecture: {unknown[0]}")
    return Unfilled(f"the UNet of {checkpoint.path}", module, tensors)


def _vae(checkpoint: Checkpoint) -> Unfilled:
    if not checkpoint.layout.names(ldm.VAE):
        raise ModelError(
            f"{checkpoint.path} holds no VAE; use a file with the VAE baked in, or give it one with "
            "--vae NAME=PATH (setting vae)"
        )
    with _shapes_explained(checkpoint, "VAE"):
        base = checkpoint.base
        config = checkpoint.layout.vae(ldm.VAE_SCALES[base], 8 * ldm.SAMPLE_SIZES[base])
        tensors = vae.convert(checkpoint.tensors(ldm.VAE), config)
        with without_weights():
            module = AutoencoderKL(**config)
    return Unfilled(f"the VAE of {checkpoint.path}", module, tensors)


def _clip(checkpoint: Checkpoint) -> Unfilled:
    with _shapes_explained(checkpoint, "text encoder"):
        config = CLIPTextConfig(**checkpoint.layout.clip(checkpoint.base))
        tensors = convert_ldm_clip_checkpoint(checkpoint.tensors(ldm.CLIP[checkpoint.base]))
        with without_weights():
            module = CLIPTextModel(config)
    return Unfilled(f"the text encoder of {checkpoint.path}", module, named_for(module, tensors))


def _open_clip(checkpoint: Checkpoint) -> Unfilled:
    prefix = ldm.OPEN_CLIP[checkpoint.base]
    with _shapes_explained(checkpoint, "text encoder"):
        config = CLIPTextConfig(**checkpoint.layout.open_clip(checkpoint.base))
        with without_weights():
            module = (CLIPTextModelWithProjection if checkpoint.base == "sdxl" else CLIPTextModel)(config)
        tensors = convert_open_clip_checkpoint(module, checkpoint.tensors(prefix), prefix=prefix)
    return Unfilled(f"the text encoder of {checkpoint.path}", module, named_for(module, tensors))


@contextmanager
def _shapes_explained(checkpoint: Checkpoint, what: str) -> Iterator[None]:
    """Tell a layout that lacks what every checkpoint of its base has."""
    try:
        yield
    except (KeyError, IndexError) as error:
        lacking = f"no {error}" if isinstance(error, KeyError) else "layers are missing"
        raise ModelError(
            f"the {what} of {checkpoint.path} is incomplete or of another architecture: {lacking}; "
            "use a whole checkpoint of Stable Diffusion 1, 2 or SDXL base"
        ) from error
    except ValueError as error:  # sizes that do not go together
        raise ModelError(f"the {what} of {checkpoint.path} is of another architecture: {error}") from error
