"""OpenAI's masks are transparent where the picture is redrawn; the contract's are white there."""

from __future__ import annotations

import io

from PIL import Image, ImageChops

from sdgrpc.web.failures import Refused

MAX_PIXELS = 32 << 20
"""What a server takes; looked at before anything is decoded."""
FORMATS = ("PNG", "WEBP")


def white_where_transparent(data: bytes) -> bytes:
    """Return a PNG that is 255 where `data` has alpha 0, and 0 where it is opaque.

    Raises:
        Refused: it is no picture with transparency.

    """
    alpha = _alpha(data, "mask")
    buffer = io.BytesIO()
    ImageChops.invert(alpha).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def has_transparency(data: bytes) -> bool:
    """Tell whether a picture without a mask is its own: transparent somewhere."""
    try:
        return _alpha(data, "image").getextrema()[0] != 255
    except Refused:
        return False  # the server says what is wrong with it, if anything is


def _alpha(data: bytes, key: str) -> Image.Image:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Refused(f"{key}: {image.width} x {image.height} pixels are more than {MAX_PIXELS}", key)
            if not (image.has_transparency_data):
                raise Refused(f"{key}: it has no transparency, which says where to redraw", key)
            return image.convert("RGBA").getchannel("A")
    except Refused:
        raise
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        raise Refused(f"{key}: no PNG or WebP that can be read", key) from None
