"""A diffusers folder, a single checkpoint file, or the packaged default, to a Model."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from sdgrpc.diffusion.checkpoints import folder, hub, precision, single_file
from sdgrpc.diffusion.checkpoints.card import CARD, model_info, prediction_type, with_card
from sdgrpc.diffusion.checkpoints.checks import check_networks, check_vocabulary, is_sdxl
from sdgrpc.diffusion.checkpoints.ldm.layout import VAE_SCALES
from sdgrpc.diffusion.checkpoints.stored import Unfilled
from sdgrpc.diffusion.checkpoints.vae import open_vae
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import ModelInfo
from sdgrpc.embedded import EMBEDDED, embedded_folder
from sdgrpc.errors import ModelError
from sdgrpc.machine import free_memory
from sdgrpc.machine.out_of_memory import is_out_of_memory

# How the system's other refusals of memory are worded: any allocator's, and for a thread's stack.
SHORTAGES = ("alloc", "can't start new thread")

# A file's bytes and the time of its last change; None where there is none.
Stamp = tuple[int, int] | None


@dataclass(frozen=True, eq=False)
class OpenModel:
    """A model's files, checked but for the weights' values: what it is, and where its tensors lie."""

    info: ModelInfo
    place: Path
    networks: Mapping[str, Unfilled]
    tokenizers: dict[str, Any]
    scheduler_config: dict[str, Any]
    force_zeros: bool
    tiny: Unfilled | None = None
    _stamps: Mapping[Path, Stamp] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        paths = {stored.path for network in self.networks.values() for stored in network.tensors.values()}
        object.__setattr__(self, "_stamps", {path: _stamp(path) for path in paths})

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that its tensors lie in."""
        return tuple(sorted(self._stamps))

    def dtype(self, device: torch.device) -> torch.dtype:
        """The dtype that `auto` stands for on a device."""
        return precision.automatic_dtype(self._unet_parameters, device)

    @property
    def _unet_parameters(self) -> int:
        return sum(one.numel() for one in self.networks["unet"].module.parameters())

    def load(self, device: torch.device, dtype: torch.dtype | None, *, packed: bool = False) -> Model:
        """Read the weights into a model of its own; what was opened stays as it is, for a later time.

        With `packed` convolutions of a large UNet on a CPU are packed as they are read (`machine.onednn`).

        Raises:
            ModelError: a file was changed since it was opened, or the device has not enough memory.

        """
        chosen = dtype or self.dtype(device)
        dtypes = dict.fromkeys(self.networks, chosen) | {"vae": precision.vae_dtype(chosen)}
        layout = precision.memory_format(self._unet_parameters, device)
        packed = packed and device.type == "cpu" and layout == torch.channels_last
        needed = sum(network.size(dtypes[name]) for name, network in self.networks.items())
        filled: dict[str, Any] = {}
        with _memory_explained(self.info.name, self.place, device, needed):
            if device.type == "cpu" and not free_memory.fits(needed):
                raise MemoryError
            for name, network in self.networks.items():
                unfilled = replace(network, module=copy.deepcopy(network.module))
                filled[name] = unfilled.fill(device, dtypes[name], layout, packed=packed and name == "unet")
        self._check_files()
        return Model(
            info=self.info,
            tokenizers=self.tokenizers,
            text_encoders={name: part for name, part in filled.items() if name.startswith("text_encoder")},
            unet=filled["unet"],
            vae=filled["vae"],
            scheduler_config=self.scheduler_config,
            device=device,
            dtype=chosen,
            force_zeros_for_empty_prompt=is_sdxl(filled) and self.force_zeros,
            tiny=None if self.tiny is None else copy.deepcopy(self.tiny).fill(device, dtypes["vae"]),
        )

    def _check_files(self) -> None:
        """Refuse other content than what was opened: names, defaults and kept prompts are that one's."""
        for path, stamp in self._stamps.items():
            if _stamp(path) != stamp:
                raise ModelError(
                    f"{path} was changed after the model {self.info.name} was opened; "
                    "start the server again to use what is there now"
                )


def load(
    name: str,
    source: str | Path,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    tokenizer: Path | None = None,
    vae: Path | None = None,
) -> Model:
    """Load a model for inference and call it `name`.

    `source` is a folder in diffusers' layout with safetensors weights, a single `.safetensors` checkpoint in
    the original layout, a hub's `owner/name` (see `hub.fetch`), or `EMBEDDED`; what exists as a path is one.
    `dtype` is of the UNet and the text encoders; None is the device's own, see `precision`. `tokenizer` is a
    folder with CLIP's vocabulary for single files. `vae` is a VAE of its own for a model that has none, or
    instead of the model's (see `open_vae`). Only a hub's name downloads anything. Weights are read
    into memory of their own in the dtype that they are used in: afterwards the files may change.

    Raises:
        ModelError: the source, a component or a file is missing, broken or of another architecture.

    """
    return open_model(name, source, tokenizer=tokenizer, vae=vae).load(device, dtype)


def open_model(
    name: str, source: str | Path, *, tokenizer: Path | None = None, vae: Path | None = None
) -> OpenModel:
    """Check a model's files and learn from them what it is, without reading weights.

    Raises:
        ModelError: as `load`.

    """
    embedded = str(source) == EMBEDDED
    place = embedded_folder() if embedded else _place(source)
    if place.is_file():
        card, force_zeros = place.with_suffix(f".{CARD}"), True
        stated = prediction_type(card)
        networks, tokenizers, config = single_file.open_parts(
            place, tokenizer=tokenizer, prediction_type=stated, own_vae=vae
        )
    else:
        card = place / CARD
        networks, tokenizers, config, force_zeros = _open_folder(place, vae)
    modules = {key: network.module for key, network in networks.items()}
    check_networks(place, modules)
    check_vocabulary(place, tokenizers, modules)
    config = with_card(card, config)
    info = model_info(name, card, tokenizers | modules, config, embedded=embedded)
    return OpenModel(info, place, networks, tokenizers, config, force_zeros)


def _place(source: str | Path) -> Path:
    """The folder or file that a source names."""
    place = Path(source).expanduser()
    if not place.exists() and hub.is_name(str(source)):
        return hub.fetch(str(source))
    return place


def _open_folder(
    place: Path, vae: Path | None
) -> tuple[dict[str, Unfilled], dict[str, Any], dict[str, Any], bool]:
    if not place.is_dir():
        raise ModelError(
            f"{place} is no folder or file; give a folder in diffusers' layout, a .safetensors checkpoint, "
            f"a hub's owner/name or {EMBEDDED!r}"
        )
    index = folder.read_index(place)
    networks, tokenizers = folder.open_parts(place, index, without={"vae"} if vae else ())
    if vae is not None:
        networks["vae"] = open_vae(vae, scaling_factor=_scaling_factor(place, index))
    config = folder.read_json(place / "scheduler" / "scheduler_config.json")
    # SDXL's pipelines set it unless the index says otherwise.
    return networks, tokenizers, config, index.get("force_zeros_for_empty_prompt") is not False


def _scaling_factor(place: Path, index: Mapping[str, Any]) -> float:
    """What a folder's latents are scaled by: its VAE's configuration says it, else its base does."""
    try:
        said = folder.read_json(place / "vae" / "config.json").get("scaling_factor")
    except ModelError:
        said = None
    return (
        float(said)
        if isinstance(said, int | float)
        else VAE_SCALES["sdxl" if "text_encoder_2" in index else "sd15"]
    )


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


@contextmanager
def _memory_explained(name: str, place: Path, device: torch.device, needed: int) -> Iterator[None]:
    """Turn the allocators' several failures into one."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error) and not any(one in str(error).lower() for one in SHORTAGES):
            raise
        raise ModelError(
            f"there is not enough memory on {device} for the model {name} ({place}), "
            f"which takes {needed / 2**30:.1f} GiB; "
            "serve it with --dtype bfloat16 or float16, keep fewer models resident, or use a larger machine"
        ) from error
