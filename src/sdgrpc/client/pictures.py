"""Images on their way in and out of calls: bytes, files and PIL images."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sdgrpc.domain import EncodedImage, ImageReady

if TYPE_CHECKING:  # Pillow is only needed by those who hand in or ask for its images
    from PIL import Image

    ImageLike = bytes | str | os.PathLike[str] | Image.Image | EncodedImage | ImageReady
    """An image file's bytes, its path, a PIL image, or an image that a call has sent."""


@dataclass(frozen=True, slots=True)
class DrawnImage(ImageReady):
    """Image `index` of a call, drawn from `seed`, ready to be saved or opened."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file as the server sent it: its format is `image.media_type`, whatever the suffix."""
        Path(path).write_bytes(self.image.data)

    def open(self) -> Image.Image:
        """Decode it."""
        return open_image(self.image)

    def _repr_png_(self) -> bytes:
        """Return what notebooks show of it: its own file, where that is a PNG."""
        return png_bytes(self.image)


def open_image(image: EncodedImage) -> Image.Image:
    """Decode an image or a preview's picture."""
    from PIL import Image

    with Image.open(io.BytesIO(image.data)) as opened:
        opened.load()
        return opened


def png_bytes(image: EncodedImage) -> bytes:
    """Return an image as a PNG file."""
    if image.media_type == "image/png":
        return image.data
    buffer = io.BytesIO()
    open_image(image).save(buffer, "PNG")
    return buffer.getvalue()


def image_bytes(image: ImageLike) -> bytes:
    """Return the bytes of an image file for `image`; a PIL image becomes a PNG.

    Raises:
        OSError: a path cannot be read.
        TypeError: `image` is none of the kinds of ImageLike.

    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, ImageReady):
        return image.image.data
    if isinstance(image, EncodedImage):
        return image.data
    if isinstance(image, (str, os.PathLike)):
        return Path(image).read_bytes()
    if hasattr(image, "save"):
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
        return buffer.getvalue()
    raise TypeError(f"an image is bytes, a path or a PIL image, not {type(image).__name__}")
