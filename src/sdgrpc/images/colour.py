"""Colours as a file's ICC profile means them, to sRGB, which is what models were trained on.

Only a profile is applied. PNG's gAMA and cHRM are not: most files that have them say a rounded 1/2.2 and mean
sRGB. Its sRGB chunk says what is assumed anyway.
"""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageChops, ImageCms

CLASSES = ("scnr", "mntr", "prtr", "spac")
"""Profiles of devices and colour spaces; the others are links and effects."""
MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
STEPS = range(0, 256, 17)
ROUNDING = 1
"""Of 255: a profile that moves no colour by more is sRGB, and pixels stay as they are."""


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an image of 8 bits by its profile, alpha kept; leave it where that is broken or unfit."""
    if not profile:
        return image
    try:
        return _converted(image, ImageCms.ImageCmsProfile(BytesIO(profile)))
    except Exception:  # whatever is wrong with it, the picture is there
        return image


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
    space = profile.profile.xcolor_space.strip()
    mode = MODES.get(space, "")
    is_grey = image.mode in ("1", "L") or (alpha is not None and _is_grey(image))
    fits = {"RGB": image.mode != "CMYK", "L": is_grey, "CMYK": image.mode == "CMYK"}
    if profile.profile.device_class not in CLASSES or not fits.get(mode, False):
        return image
    to_srgb = ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    if mode == "RGB" and _changes_nothing(to_srgb):
        return image
    converted = to_srgb.apply(image.convert("RGB").convert(mode) if mode != image.mode else image)
    if alpha is not None:
        converted.putalpha(alpha)
    return converted


def _is_grey(image: Image.Image) -> bool:
    """Whether the colours of an RGBA image are equal in every pixel."""
    red, green, blue, _ = image.split()
    return not (ImageChops.difference(red, green).getbbox() or ImageChops.difference(red, blue).getbbox())


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    colours = bytes(
        value for red in STEPS for green in STEPS for blue in STEPS for value in (red, green, blue)
    )
    probe = Image.frombytes("RGB", (len(STEPS) ** 2, len(STEPS)), colours)
    bands = ImageChops.difference(transform.apply(probe), probe).getextrema()
    return max(int(band[1]) for band in bands) <= ROUNDING  # type: ignore[index]
