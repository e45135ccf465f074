"""Pixels, image files and latents as they travel, and what becomes of pictures that are upscaled."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from enum import Enum


@dataclass(frozen=True, slots=True)
class Picture:
    """Decoded pixels, row-major, 8 bits each: `len(data) == width * height * channels`.

    `channels` is 3 (RGB) for images and 1 (grey) for masks; 4 (RGBA) for images that keep their alpha.
    """

    width: int
    height: int
    channels: int
    data: bytes = field(repr=False)


class ResizeMode(Enum):
    """How a picture is brought to another size; see `ResizeMode` of the contract."""

    STRETCH = "stretch"
    CROP = "crop"
    PAD = "pad"


@dataclass(frozen=True, slots=True)
class EncodedImage:
    """An image file and what it holds. `media_type` is `image/png`, `image/jpeg` or `image/webp`."""

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """Return what notebooks show of it."""
        return {self.media_type: base64.b64encode(self.data).decode(), "text/plain": repr(self)}


@dataclass(frozen=True, slots=True)
class LatentArray:
    """A latent as it travels: float16 little endian, `[channels, height, width]`, row-major."""

    channels: int
    height: int
    width: int
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UpscalerInfo:
    """An upscaler: it makes pictures `scale` times as wide and high; `architecture` is such as `ESRGAN`."""

    name: str
    scale: int
    architecture: str


@dataclass(frozen=True, slots=True)
class UpscaleTask:
    """A valid request with every default filled in. `image` has 3 channels, or 4 with alpha.

    `width` and `height` are the result's pixels.
    """

    request_id: str
    upscaler: str
    image: Picture
    width: int
    height: int
    media_type: str = "image/png"
    quality: int = 90


@dataclass(frozen=True, slots=True)
class UpscaleAccepted:
    """The picture waits behind `queue_position` others; the result has the task's size."""

    queue_position: int
    task: UpscaleTask
    tile_count: int


@dataclass(frozen=True, slots=True)
class UpscaleProgress:
    """Tile `tile`, from 1, of `tile_count` is done."""

    tile: int
    tile_count: int
    elapsed_seconds: float
    remaining_seconds: float


UpscaleEvent = UpscaleAccepted | UpscaleProgress | EncodedImage
