"""Small pictures of large ones."""

from __future__ import annotations

from PIL import Image

from sdgrpc.domain import EncodedImage, Picture
from sdgrpc.images.decoding import to_image, to_picture
from sdgrpc.images.encoding import JPEG, encode

SIDE = 256
QUALITY = 85


def thumbnail(picture: Picture, side: int = SIDE) -> EncodedImage:
    """Return a JPEG of a picture whose longer side has at most `side` pixels; a small one keeps its size."""
    small = to_image(picture)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return encode(to_picture(small), JPEG, quality=QUALITY)
