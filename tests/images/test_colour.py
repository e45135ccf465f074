"""ICC profiles, to sRGB."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image, ImageCms

from sdgrpc import images
from sdgrpc.images.limits import MAX_PROFILE_BYTES
from tests.support.bites import (
    exchanged_profile,
    exif_block,
    grey_profile,
    ink_profile,
    png_chunk,
    png_with,
    srgb_profile,
)

RED, SWAPPED = (200, 30, 60), (30, 200, 60)
FILES = [("JPEG", {"quality": 95}), ("PNG", {}), ("WEBP", {"lossless": True})]


def file_of(image: Image.Image, kind: str, **options) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def first(data: bytes) -> tuple[int, ...]:
    return tuple(images.decode(data).data[:3])


@pytest.mark.parametrize(("kind", "options"), FILES)
def test_exchanged_primaries_are_what_a_viewer_shows(kind: str, options: dict) -> None:
    """Red with the primaries of red and green exchanged is green, in every format."""
    data = file_of(Image.new("RGB", (64, 64), RED), kind, icc_profile=exchanged_profile(), **options)
    assert first(data) == pytest.approx(SWAPPED, abs=2)


def test_the_conversion_is_lcms() -> None:
    """Every pixel as the colour management library has it, with a colour in each."""
    picture = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)])
    profile = ImageCms.ImageCmsProfile(BytesIO(exchanged_profile()))
    expected = ImageCms.profileToProfile(picture, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
    assert expected is not None
    data = file_of(picture, "PNG", icc_profile=exchanged_profile())
    assert images.decode(data).data == expected.tobytes()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_srgb_changes_nothing(kind: str) -> None:
    """Not by one of 255: a file with the profile is the file without."""
    picture = Image.merge("RGB", [Image.linear_gradient("L").rotate(turn) for turn in (0, 90, 180)])
    plain = images.decode(file_of(picture, kind))
    assert images.decode(file_of(picture, kind, icc_profile=srgb_profile())) == plain


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize(
    "profile",
    [
        b"nonsense",
        b"\0" * 200,
        srgb_profile()[:200],
        exchanged_profile()[:150] + b"\xff" * 400,
        grey_profile(1.0),
        exchanged_profile() + bytes(MAX_PROFILE_BYTES),
    ],
    ids=["text", "zeros", "cut", "spoilt", "of greys", "too large"],
)
def test_a_broken_profile_is_ignored(kind: str, profile: bytes) -> None:
    """The picture is there, and read as sRGB."""
    picture = Image.new("RGB", (16, 16), RED)
    plain = images.decode(file_of(picture, kind))
    assert images.decode(file_of(picture, kind, icc_profile=profile)) == plain


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_greys_are_converted_by_their_own_profile(kind: str) -> None:
    """Linear light: 128 of 255 is 188 in sRGB (1.055 * 0.502 ** (1 / 2.4) - 0.055)."""
    image = Image.new("L", (16, 16), 128)
    assert first(file_of(image, kind, icc_profile=grey_profile(1.0))) == pytest.approx((188, 188, 188), abs=1)
    assert first(file_of(image, kind, icc_profile=exchanged_profile())) == (128, 128, 128)


def test_alpha_is_kept_beside_the_profile() -> None:
    """Converted first, laid over white then: transparent white does not bleed in."""
    image = Image.new("RGBA", (16, 16), (*RED, 128))
    for kind, options in FILES[1:]:
        found = first(file_of(image, kind, icc_profile=exchanged_profile(), **options))
        assert found == pytest.approx([255 - (255 - value) * 128 / 255 for value in SWAPPED], abs=2), kind
    grey = file_of(Image.new("LA", (16, 16), (128, 128)), "PNG", icc_profile=grey_profile(1.0))
    assert first(grey) == pytest.approx([255 - (255 - 188) * 128 / 255] * 3, abs=2)


def test_palettes_and_16_bits_are_converted() -> None:
    """Whatever way the colours are stored."""
    palette = Image.new("RGB", (16, 16), RED).convert("P", palette=Image.Palette.ADAPTIVE)
    assert first(file_of(palette, "PNG", icc_profile=exchanged_profile())) == pytest.approx(SWAPPED, abs=2)
    row = b"\0" + struct.pack(">3H", *(value * 257 for value in RED)) * 8
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(exchanged_profile()))
    pixels = png_chunk(b"IDAT", zlib.compress(row * 8))
    data = b"\x89PNG\r\n\x1a\n" + header + profile + pixels + png_chunk(b"IEND", b"")
    assert first(data) == pytest.approx(SWAPPED, abs=2)


def test_orientation_and_profile_go_together() -> None:
    """Turned and converted."""
    image = Image.new("RGB", (16, 8), RED)
    image.putpixel((0, 0), (0, 0, 250))
    for kind, options in FILES[1:]:
        exif = b"Exif\0\0" + exif_block(6)
        picture = images.decode(file_of(image, kind, icc_profile=exchanged_profile(), exif=exif, **options))
        assert (picture.width, picture.height) == (8, 16)
        blue = [picture.data[3 * at : 3 * at + 3][2] > 200 for at in range(8)]
        assert blue == [*[False] * 7, True]
        assert tuple(picture.data[:3]) == pytest.approx(SWAPPED, abs=2)


def test_masks_are_data() -> None:
    """A profile does not move what is redrawn."""
    mask = Image.new("L", (16, 16), 128)
    data = file_of(mask, "PNG", icc_profile=grey_profile(1.0))
    assert set(images.decode_mask(data).data) == {128}


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"gAMA", struct.pack(">I", 100_000)),
        png_chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 30000, 60000, 64000, 33000, 15000, 6000)),
        png_chunk(b"sRGB", b"\0"),
    ],
    ids=["gAMA", "cHRM", "sRGB"],
)
def test_other_chunks_about_colour_are_not_applied(chunk: bytes) -> None:
    """As documented: what programs write there is mostly not meant."""
    assert images.decode(png_with(chunk)) == images.decode(png_with())


@pytest.mark.parametrize(
    "inks", [(0, 0, 0, 0), (255, 0, 0, 0), (128, 0, 0, 0), (0, 0, 0, 128), (0, 0, 0, 255)]
)
def test_inks_are_what_their_profile_prints(inks: tuple[int, int, int, int]) -> None:
    """Here cyan is a middle grey, whatever CMYK is without a profile; black is black, so none is to match."""

    def lightness(cyan: float, _magenta: float, _yellow: float, black: float) -> float:
        return (100 - 50 * cyan) * (1 - black)

    data = file_of(Image.new("CMYK", (64, 64), inks), "JPEG", quality=100, icc_profile=ink_profile(lightness))
    grey = grey_of(lightness(*(ink / 255 for ink in inks)))
    assert first(data) == pytest.approx((grey,) * 3, abs=2)


def grey_of(lightness: float) -> float:
    """The sRGB grey, of 255, of CIE L*: IEC 61966-2-1."""
    luminance = ((lightness + 16) / 116) ** 3 if lightness > 8 else lightness * 27 / 24389
    return 255 * (1.055 * luminance ** (1 / 2.4) - 0.055 if luminance > 0.0031308 else 12.92 * luminance)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_of_inks_in_another_picture_is_ignored(mode: str) -> None:
    """As is one of colours in a picture of inks."""
    picture = Image.new("RGB", (64, 64), RED).convert(mode)
    profile = ink_profile(lambda *_: 50.0)
    assert images.decode(file_of(picture, "JPEG", icc_profile=profile)) == images.decode(
        file_of(picture, "JPEG")
    )
    inks = Image.new("CMYK", (64, 64), (255, 0, 0, 0))
    assert images.decode(file_of(inks, "JPEG", icc_profile=exchanged_profile())) == images.decode(
        file_of(inks, "JPEG")
    )
