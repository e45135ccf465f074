"""Pictures enlarged by a network."""

from __future__ import annotations

from dataclasses import dataclass

from sdgrpc.domain.pictures import EncodedImage, Picture


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
