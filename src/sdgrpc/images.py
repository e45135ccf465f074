"""Image files to pixels and back: limits are checked before anything is decoded. No torch here.

Inputs come out as a viewer shows them: EXIF orientation applied, palettes, greys and 16 bits converted, the
first 8 bits of 16 kept, transparency laid over white. A mask is read as luminance with transparency laid over
black, so that white strokes on a transparent canvas are redrawn and the rest is kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from PIL import Image, ImageChops, ImageOps
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngInfo
from PIL.WebPImagePlugin import WebPImageFile

from sdgrpc.domain import EncodedImage, Picture

PNG, JPEG, WEBP = "image/png", "image/jpeg", "image/webp"
MEDIA_TYPES = (PNG, JPEG, WEBP)

EXIF_IFD, USER_COMMENT = 0x8769, 0x9286
MAX_EXIF_TEXT_BYTES = 60_000  # a JPEG segment holds 65,533 bytes, of which EXIF's own structure takes a few


Decode = Callable[[bytes, "ImageLimits"], Picture]


class ImageError(ValueError):
    """An image file that cannot be used; the message is a predicate: `is truncated or damaged`."""


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What may be decoded: bytes of the file, pixels in all, pixels per side (at least, at most)."""

    max_bytes: int = 32 << 20
    max_pixels: int = 32 << 20
    min_side: int = 8
    max_side: int = 16384


def decode(data: bytes, limits: ImageLimits = ImageLimits()) -> Picture:
    """Decode a PNG, JPEG or WebP file to RGB.

    Raises:
        ImageError: not such a file, beyond a limit, animated, truncated or damaged.

    """
    return _decode(data, limits, "RGB", "white")


def decode_mask(data: bytes, limits: ImageLimits = ImageLimits()) -> Picture:
    """Decode a file to grey, white (255) where the picture is to be redrawn. Raises as `decode`."""
    return _decode(data, limits, "L", "black")


def encode(picture: Picture, media_type: str = PNG, *, quality: int = 90, text: str = "") -> EncodedImage:
    """Encode a picture; equal arguments give equal bytes.

    `text` goes where A1111 looks for generation parameters: PNG's text chunk `parameters`, the EXIF user
    comment of the others. `quality` is of jpeg and webp, 1 to 100.
    """
    buffer = BytesIO()
    image = to_image(picture)
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


def to_image(picture: Picture) -> Image.Image:
    """The picture as Pillow's image."""
    mode = "RGB" if picture.channels == 3 else "L"
    return Image.frombytes(mode, (picture.width, picture.height), picture.data)


def to_picture(image: Image.Image) -> Picture:
    """An image of mode RGB or L as a picture."""
    return Picture(image.width, image.height, len(image.getbands()), image.tobytes())


def _decode(data: bytes, limits: ImageLimits, mode: str, backdrop: str) -> Picture:
    if not data:
        raise ImageError("is empty")
    if len(data) > limits.max_bytes:
        raise ImageError(f"has {len(data)} bytes; the most is {limits.max_bytes}")
    reader = _reader(data)
    try:
        if reader is WebPImageFile:
            _check_size(_webp_size(data), limits)
        with reader(BytesIO(data)) as image:
            _check_size(image.size, limits)
            if getattr(image, "is_animated", False):
                raise ImageError("is an animation; send one picture")
            return to_picture(_converted(_upright(_shallow(image, data)), mode, backdrop))
    except ImageError:
        raise
    except Exception:  # Pillow's decoders raise nearly anything on hostile data; none of it is for the client
        raise ImageError("is truncated or damaged") from None


def _reader(data: bytes) -> type[ImageFile]:
    """The class for the file's signature; `Image.open` would try more formats and keeps global limits."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return WebPImageFile
    raise ImageError("is not a PNG, JPEG or WebP file")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header (RFC 9649, section 2): Pillow allocates the canvas on opening."""
    kind, start = data[12:16], data[20:30]
    if len(start) < 10:
        raise ImageError("is truncated or damaged")
    if kind == b"VP8X":
        return _little(start[4:7]) + 1, _little(start[7:10]) + 1
    if kind == b"VP8L":
        bits = _little(start[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _little(start[6:8]) & 0x3FFF, _little(start[8:10]) & 0x3FFF


def _little(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _check_size(size: tuple[int, int], limits: ImageLimits) -> None:
    """Refuse by the header alone, before a pixel is decoded."""
    width, height = size
    shape = f"is {width}x{height} pixels"
    if max(width, height) > limits.max_side:
        raise ImageError(f"{shape}; no side may have more than {limits.max_side}")
    if width * height > limits.max_pixels:
        raise ImageError(f"{shape}, {width * height} in all; the most is {limits.max_pixels}")
    if min(width, height) < limits.min_side:
        raise ImageError(f"{shape}; each side needs at least {limits.min_side}")


def _shallow(image: ImageFile, data: bytes) -> Image.Image:
    """Scale greys to 8 bits; the one transparent colour of a PNG without alpha as Pillow has it, or as alpha.

    Pillow clips 16 bits of grey, and compares a transparent colour of 2, 4 or 16 bits with pixels of 8.
    """
    depth = data[24] if isinstance(image, PngImageFile) else 8
    key = image.info.get("transparency")
    image.load()
    shallow: Image.Image = image
    if image.mode.startswith("I"):
        shallow = image.point(lambda value: value / 256).convert("L")
    if isinstance(key, int) and depth in (2, 4):
        shallow.info["transparency"] = key * (255 // (2**depth - 1))
    elif isinstance(key, int | tuple) and depth == 16:
        shallow.putalpha(_opaque_at_16_bits(image, data, key))
        shallow.info.pop("transparency", None)
    return shallow


def _opaque_at_16_bits(image: ImageFile, data: bytes, key: int | tuple[int, int, int]) -> Image.Image:
    """0 where both bytes of a grey or of every colour are those of `key`, else 255."""
    if isinstance(key, int):
        low, high = Image.frombytes("LA", image.size, image.tobytes()).split()
        pairs = [(low, high, key)]
    else:
        with PngImageFile(BytesIO(data)) as second:  # decoded again: what Pillow read is the first bytes
            second.tile = [tile._replace(args="RGB;16L") for tile in second.tile]
            pairs = list(zip(second.split(), image.split(), key, strict=True))
    opaque = Image.new("L", image.size, 0)
    for low, high, value in pairs:
        for octets, wanted in ((low, value & 255), (high, value >> 8)):
            unequal = octets.point([255 * (octet != wanted) for octet in range(256)])
            opaque = ImageChops.lighter(opaque, unequal)
    return opaque


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation. A broken EXIF block is not the picture's fault."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # anything can be in there
        return image


def _converted(image: Image.Image, mode: str, backdrop: str) -> Image.Image:
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        image = Image.new("RGBA", pixels.size, backdrop)
        image.alpha_composite(pixels)
    return image.convert(mode)


def _exif(text: str) -> bytes:
    """An EXIF block with `text` as the user comment, as A1111 writes it; a text beyond its room is cut."""
    comment = text.encode("utf-16-be")
    if len(comment) > MAX_EXIF_TEXT_BYTES:
        kept = comment[: MAX_EXIF_TEXT_BYTES - 2].decode("utf-16-be", "ignore")
        comment = f"{kept}…".encode("utf-16-be")
    exif = Image.Exif()
    exif.get_ifd(EXIF_IFD)[USER_COMMENT] = b"UNICODE\0" + comment
    return exif.tobytes()
