"""Upscale: the request, and what its events say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sdgrpc.client.errors import incomplete
from sdgrpc.client.pictures import image_bytes, open_image, png_bytes
from sdgrpc.domain import EncodedImage, UpscaleProgress, UpscalerInfo
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb

if TYPE_CHECKING:
    import os

    from PIL import Image

    from sdgrpc.client.pictures import ImageLike

OnTile = Callable[[UpscaleProgress], None]


@dataclass(frozen=True, slots=True)
class UpscaledImage:
    """A picture, and the upscaler that made it."""

    image: EncodedImage
    upscaler: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file as the server sent it."""
        from pathlib import Path

        Path(path).write_bytes(self.image.data)

    def open(self) -> Image.Image:
        """Decode it."""
        return open_image(self.image)

    def _repr_png_(self) -> bytes:
        """Return what notebooks show of it."""
        return png_bytes(self.image)


def upscale_request(
    image: ImageLike, upscaler: str, width: int, height: int, media_type: str, quality: int
) -> pb.UpscaleRequest:
    """Build a request; raises what `image_bytes` raises."""
    return pb.UpscaleRequest(
        upscaler=upscaler,
        image=pb.Image(data=image_bytes(image)),
        width=width,
        height=height,
        media_type=media_type,
        quality=quality,
    )


class UpscaleCollector:
    """Tells the tiles of one call's messages, and remembers what makes its result."""

    def __init__(self, on_tile: OnTile | None) -> None:
        self._on_tile, self._upscaler = on_tile, ""
        self._image: EncodedImage | None = None

    def take(self, message: pb.UpscaleEvent) -> None:
        """Take a message; what `on_tile` raises goes on."""
        match message.WhichOneof("event"):
            case "accepted":
                self._upscaler = message.accepted.upscaler
            case "progress":
                told = message.progress
                elapsed, remaining = (one.ToNanoseconds() / 1e9 for one in (told.elapsed, told.remaining))
                if self._on_tile is not None:
                    self._on_tile(UpscaleProgress(told.tile, told.tile_count, elapsed, remaining))
            case "image":
                one = message.image
                self._image = EncodedImage(one.data, one.media_type, one.width, one.height)

    def result(self) -> UpscaledImage:
        """Return the picture; raises IncompleteAnswerError where none came."""
        if self._image is None:
            raise incomplete()
        return UpscaledImage(self._image, self._upscaler)


def upscaler(message: catalog_pb2.Upscaler) -> UpscalerInfo:
    """Decode a message."""
    return UpscalerInfo(message.name, message.scale, message.architecture)
