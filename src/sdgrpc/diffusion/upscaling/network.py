"""Upscalers as published (ESRGAN's family and others that spandrel knows), loaded and applied."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from sdgrpc.diffusion.upscaling.files import state_dict
from sdgrpc.diffusion.upscaling.tiles import TILE, upscaled
from sdgrpc.domain import Picture, UpscalerInfo
from sdgrpc.errors import ModelError
from sdgrpc.images import to_image, to_picture
from sdgrpc.machine.out_of_memory import as_out_of_memory
from sdgrpc.machine.streams import own_stream

EXTRA = 'upscalers need the extra: pip install "sdgrpc[upscale]"'
OnTile = Callable[[int, int], None]


def nothing(_tile: int, _count: int) -> None:
    """Take no note of a tile."""


@dataclass(frozen=True, eq=False)
class Upscaler:
    """A network on its device, and what it is; `descriptor` is spandrel's, `tile` the sides of a part.

    Threads may share it.
    """

    info: UpscalerInfo
    descriptor: Any
    device: torch.device
    tile: int = TILE

    def upscale(self, picture: Picture, on_tile: OnTile = nothing) -> Picture:
        """The picture, `info.scale` times as large. Alpha, of which a network knows nothing, by Lanczos.

        Raises:
            OutOfMemory: a tile does not fit.

        """
        image = to_image(picture)
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        pixels = np.asarray(image.convert("RGB"))
        large = Image.fromarray(
            upscaled(pixels, self._enlarge, self.info.scale, on_tile=on_tile, tile=self.tile)
        )
        if alpha is not None:
            large.putalpha(alpha.resize(large.size, Image.Resampling.LANCZOS))
        return to_picture(large)

    def covering(self, image: Image.Image, width: int, height: int, on_tile: OnTile = nothing) -> Image.Image:
        """The image (RGB) upscaled until it covers that size, and once at least."""
        while True:
            image = to_image(self.upscale(to_picture(image), on_tile))
            if self.info.scale == 1 or (image.width >= width and image.height >= height):
                return image

    @torch.inference_mode()
    def _enlarge(self, pixels: np.ndarray) -> np.ndarray:
        def answer() -> np.ndarray:
            unit = torch.from_numpy(pixels.copy()).to(self.device).permute(2, 0, 1)[None]
            drawn = self.descriptor(unit.to(self.descriptor.dtype) / 255)
            values: np.ndarray = (drawn[0].float() * 255).permute(1, 2, 0).cpu().numpy()
            return values

        with own_stream(self.device, finish=True):
            values = as_out_of_memory(answer, self.device)
        if not np.isfinite(values).all():
            raise ModelError(f"the upscaler {self.info.name!r} makes numbers that are not finite")
        return values


def load(name: str, place: Path, device: torch.device) -> Upscaler:
    """Load a file of weights onto a device, in half of float32's precision where it is CUDA and knows it.

    Raises:
        ModelError: the file cannot be used, or spandrel is not installed; the message says why.

    """
    try:
        from spandrel import (
            MAIN_REGISTRY,
            ImageModelDescriptor,
            UnsupportedModelError,
            canonicalize_state_dict,
        )
    except ImportError as error:
        raise ModelError(EXTRA) from error
    what = f"the upscaler {place}"
    try:
        found = MAIN_REGISTRY.load(canonicalize_state_dict(state_dict(place)))
    except UnsupportedModelError as error:
        raise ModelError(f"{what} is of no architecture that spandrel knows") from error
    except ModelError:
        raise
    except Exception as error:  # its detectors and networks trust the names and shapes
        said = str(error).strip().partition("\n")[0][:200]
        raise ModelError(f"{what} is broken, or of another form: {type(error).__name__}: {said}") from error
    if not isinstance(found, ImageModelDescriptor) or found.purpose != "SR":
        raise ModelError(f"{what} is for {found.purpose}; it must be for super-resolution")
    if (found.input_channels, found.output_channels) != (3, 3):
        raise ModelError(
            f"{what} takes {found.input_channels} channels and gives {found.output_channels}, not 3"
        )
    half = device.type == "cuda" and found.supports_half
    found.to(device=device, dtype=torch.float16 if half else torch.float32).eval()
    return Upscaler(UpscalerInfo(name, found.scale, found.architecture.name), found, device)


def load_all(places: Mapping[str, Path], device: torch.device) -> dict[str, Upscaler]:
    """Load every upscaler by its name; raises as `load`."""
    return {name: load(name, place, device) for name, place in places.items()}
