"""Where a picture keeps the text: PNG's chunk `parameters`, the EXIF user comment of JPEG and WebP."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
FORMATS = ("PNG", "JPEG", "WEBP")


class NoParameters(ValueError):
    """A picture without the text, or no picture; the message is a predicate: `holds no …`."""


def text_of_picture(data: bytes) -> str:
    """Return the text of a picture's file.

    Raises:
        NoParameters: it is no PNG, JPEG or WebP, or holds no such text.

    """
    from PIL import Image  # here, so that `--help` answers without it

    try:
        with Image.open(BytesIO(data), formats=FORMATS) as image:
            text = _of_png(image) if image.format == "PNG" else _of_exif(image)
    except NoParameters:
        raise
    except Exception:  # Pillow's readers raise nearly anything on broken data
        raise NoParameters("is not a PNG, JPEG or WebP file, or it is damaged") from None
    if not text:
        raise NoParameters("holds no generation parameters")
    return text


def _of_png(image: Image.Image) -> str:
    chunks = image.info
    if "parameters" not in chunks:
        image.load()  # the chunk may stand after the pixels
        chunks = {**image.info, **getattr(image, "text", {})}
    if "parameters" not in chunks and {"workflow", "prompt"} & set(chunks):
        raise NoParameters("holds a workflow of ComfyUI, which is not read, and no generation parameters")
    return str(chunks.get("parameters", ""))


def _of_exif(image: Image.Image) -> str:
    comment = image.getexif().get_ifd(EXIF_IFD).get(USER_COMMENT, b"")
    if isinstance(comment, str):
        return comment
    kind, text = bytes(comment[:8]), bytes(comment[8:])
    if kind == b"UNICODE\0":
        return _utf16(text)
    if kind in (b"ASCII\0\0\0", bytes(8)):
        return text.decode("utf-8", "replace").strip("\0")
    return bytes(comment).decode("utf-8", "replace").strip("\0")


def _utf16(text: bytes) -> str:
    """Decode UTF-16 of either byte order: A1111 writes big endian, some others little, and few say which."""
    if text[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return text.decode("utf-16", "replace")
    high, low = text[0::2].count(0), text[1::2].count(0)  # most signs have an empty upper half
    return text.decode("utf-16-be" if high >= low else "utf-16-le", "replace")
