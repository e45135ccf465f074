"""Pictures to image files, in sRGB.

No file says so by a profile or chunk: without one, sRGB is what viewers take (CSS Color 4, section 13).
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from sdgrpc.domain import EncodedImage, Picture
from sdgrpc.images.decoding import to_image

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
MEDIA_TYPES = (PNG, JPEG, WEBP)

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
MAX_EXIF_TEXT_BYTES = 60_000  # a JPEG segment holds 65,533 bytes, of which EXIF's own structure takes a few


def encode(picture: Picture, media_type: str = PNG, *, quality: int = 90, text: str = "") -> EncodedImage:
    """Encode a picture; equal arguments give equal bytes.

    `text` goes where A1111 looks for generation parameters: PNG's text chunk `parameters`, the EXIF user
    comment of the others. `quality` is of jpeg and webp, 1 to 100.
    """
    buffer = BytesIO()
    image = to_image(picture)
    if media_type == JPEG and image.mode == "RGBA":  # which has no alpha
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if media_type == PNG:
        chunks = PngInfo()
        if text:
            chunks.add_text("parameters", text)
        image.save(buffer, "PNG", pnginfo=chunks)
    elif media_type in (JPEG, WEBP):
        exif = _exif(text) if text else b""
        image.save(buffer, media_type.removeprefix("image/").upper(), quality=quality, exif=exif)
    else:
        raise ValueError(f"{media_type!r} is none of {', '.join(MEDIA_TYPES)}")
    return EncodedImage(buffer.getvalue(), media_type, picture.width, picture.height)


def _exif(text: str) -> bytes:
    """An EXIF block with `text` as the user comment, as A1111 writes it; a text beyond its room is cut."""
    comment = text.encode("utf-16-be")
    if len(comment) > MAX_EXIF_TEXT_BYTES:
        kept = comment[: MAX_EXIF_TEXT_BYTES - 2].decode("utf-16-be", "ignore")
        comment = f"{kept}…".encode("utf-16-be")
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + comment
    return exif.tobytes()
