"""Image files to pixels: limits are checked before anything is decoded.

Inputs come out as a viewer shows them: EXIF orientation applied, colours converted to sRGB by the file's
profile, palettes, greys and 16 bits converted, the first 8 bits of 16 kept, transparency laid over white. A
mask is read as luminance with transparency laid over black, so that white strokes on a transparent canvas are
redrawn and the rest is kept; it is data, to which no profile is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

from PIL import Image, ImageChops
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from sdgrpc.domain import Picture
from sdgrpc.images import jpeg, limits, png, webp
from sdgrpc.images.colour import to_srgb
from sdgrpc.images.exif import upright
from sdgrpc.images.limits import DAMAGED, DEFAULT_LIMITS, ImageError, ImageLimits
from sdgrpc.images.reading import ReadAs, Reading

Read = Callable[[bytes, ReadAs], Reading]
"""What reads a file: in this process or in another; raises ImageError."""

Examine = Callable[[bytes, ImageLimits], limits.ImageFile]

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Of a picture's channels."""
CLEAR = 128
"""An alpha below it is seen as transparent."""
BLACK, WHITE = 5, 250
"""Greys from which, and up to which, a mask's strokes count as drawn on purpose."""


def read(data: bytes, use: ReadAs, bounds: ImageLimits = DEFAULT_LIMITS) -> Reading:
    """Decode a PNG, JPEG or WebP file to RGB, or to grey for a mask: white (255) where it is to be redrawn.

    LAYERED keeps alpha where there is some.

    Raises:
        ImageError: not such a file, beyond a limit, animated, truncated or damaged.

    """
    if not data:
        raise ImageError("is empty")
    if len(data) > bounds.max_bytes:
        raise ImageError(f"has {len(data)} bytes; the most is {bounds.max_bytes}")
    examine, decoder = _format(data)
    file = examine(data, bounds)
    try:
        with decoder(BytesIO(file.body)) as opened:
            bounds.check_size(*opened.size)
            image = upright(_shallow(opened, file.body), file.exif)
            if use is ReadAs.MASK:
                return Reading(_flat(image, "L", "black"), _mask_warning(image))
            if use is ReadAs.LAYERED:
                return Reading(_layered(to_srgb(image, file.profile)))
            return Reading(_flat(to_srgb(image, file.profile), "RGB", "white"), _image_warning(image))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("takes more memory to decode than pictures of its size do") from None
    except Exception:  # Pillow's decoders raise nearly anything on hostile data; none of it is for the client
        raise ImageError(DAMAGED) from None


def decode(data: bytes, bounds: ImageLimits = DEFAULT_LIMITS) -> Picture:
    """Decode a file to RGB; raises as `read`."""
    return read(data, ReadAs.IMAGE, bounds).picture


def decode_mask(data: bytes, bounds: ImageLimits = DEFAULT_LIMITS) -> Picture:
    """Decode a file to grey, white (255) where the picture is to be redrawn; raises as `read`."""
    return read(data, ReadAs.MASK, bounds).picture


def to_image(picture: Picture) -> Image.Image:
    """The picture as Pillow's image."""
    return Image.frombytes(MODES[picture.channels], (picture.width, picture.height), picture.data)


def to_picture(image: Image.Image) -> Picture:
    """An image of mode RGB, RGBA or L as a picture."""
    return Picture(image.width, image.height, len(image.getbands()), image.tobytes())


def _format(data: bytes) -> tuple[Examine, type[ImageFile]]:
    """What looks through the file and decodes it; `Image.open` tries more and has global limits."""
    if data.startswith(png.SIGNATURE):
        return png.examine, PngImageFile
    if data.startswith(jpeg.SIGNATURE):
        return jpeg.examine, JpegImageFile
    if webp.is_webp(data):
        return webp.examine, WebPImageFile
    raise ImageError("is not a PNG, JPEG or WebP file")


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


def _flat(image: Image.Image, mode: str, backdrop: str) -> Picture:
    if image.has_transparency_data:
        pixels = image.convert("RGBA")
        image = Image.new("RGBA", pixels.size, backdrop)
        image.alpha_composite(pixels)
    return to_picture(image.convert(mode))


def _layered(image: Image.Image) -> Picture:
    return to_picture(image.convert("RGBA" if image.has_transparency_data else "RGB"))


def _image_warning(image: Image.Image) -> str:
    if not _has_clear_parts(image):
        return ""
    return "has transparent parts, which are laid over white; a mask in an alpha channel is not read"


def _mask_warning(image: Image.Image) -> str:
    """White strokes are meant, whatever is clear around them; other colours beside clear parts may not be."""
    if not _has_clear_parts(image):
        return ""
    opaque = image.convert("RGBA").getchannel("A").point([255 * (value >= CLEAR) for value in range(256)])
    greys = image.convert("RGBA").convert("RGB").convert("L").histogram(opaque)
    if any(greys[WHITE:]) and not any(greys[BLACK + 1 : WHITE]):
        return ""
    return (
        "has transparent parts, which count as black and are kept; if its alpha channel is the mask, send "
        "that channel as a grey picture, white where it is to be redrawn"
    )


def _has_clear_parts(image: Image.Image) -> bool:
    if not image.has_transparency_data:
        return False
    lowest = image.convert("RGBA").getchannel("A").getextrema()[0]
    return isinstance(lowest, int) and lowest < CLEAR
