"""Files that are refused, or rid of what nobody needs, by their structure alone."""

from __future__ import annotations

import tracemalloc
import zlib
from io import BytesIO

import pytest
from PIL import Image

from sdgrpc import images
from sdgrpc.images import ImageError, ImageLimits, jpeg, png, webp
from tests.support.bites import (
    exif_block,
    jpeg_of_scans,
    jpeg_with,
    png_chunk,
    png_with,
    segment,
    srgb_profile,
    webp_with,
)

LIMITS = ImageLimits()
PLAIN = images.decode(png_with())
BOMB = zlib.compress(bytes(100 << 20), 9)  # 100 KB that are 100 MiB


@pytest.mark.parametrize("count", [101, 400, 4000])
def test_a_jpeg_of_many_scans_is_refused_before_a_pixel_is_decoded(count: int) -> None:
    """A scan of 33 million pixels takes 30 ms or more to decode; counting takes less than one of them."""
    data = jpeg_of_scans(count, 5792)
    assert len(data) < 350 << 10
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="has more than 100 scans"):
            images.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_jpeg_of_a_hundred_scans_is_read() -> None:
    """The bound is the last that is taken."""
    assert set(images.decode(jpeg_of_scans(100)).data) == {128}


@pytest.mark.parametrize("kind", [b"prVt", b"tEXt", b"zTXt", b"IDAT", b"fdAT", b"iCCP"])
def test_a_png_of_many_chunks_is_refused(kind: bytes) -> None:
    """Empty ones, whatever they are called; the rest of the file is not looked at."""
    extra = png_chunk(kind, b"a\0" if kind == b"tEXt" else b"")
    with pytest.raises(ImageError, match="has more than 1000 chunks"):
        images.decode(png_with(extra * 200_000))


def test_a_png_of_a_thousand_chunks_is_read() -> None:
    """Its header, its pixels and its end are three of them; one more is too many."""
    assert images.decode(png_with(png_chunk(b"prVt", b"") * 997)) == PLAIN
    with pytest.raises(ImageError, match="chunks"):
        images.decode(png_with(png_chunk(b"prVt", b"") * 998))


def test_a_large_png_in_small_pieces_is_read() -> None:
    """Programs cut pixels into 8 KiB: 12 MB are 1,500 pieces, and no bomb."""
    data = png_with(side=2000, idat_size=8192)
    assert data.count(b"IDAT") > 1000
    assert images.decode(data).width == 2000
    with pytest.raises(ImageError, match="chunks"):
        images.decode(png_with(side=2000, idat_size=2048))


@pytest.mark.parametrize(
    "extra",
    [
        png_chunk(b"zTXt", b"a\0\0" + BOMB),
        png_chunk(b"iTXt", b"a\0\1\0\0\0" + BOMB),
        png_chunk(b"iCCP", b"a\0\0" + BOMB),
        png_chunk(b"tEXt", b"a\0" + b"x" * (4 << 20)),
        png_chunk(b"acTL", b"\0\0\0\1\0\0\0\0"),
        png_chunk(b"eXIf", b"\xff" * 1000),
    ],
    ids=["zTXt", "iTXt", "iCCP", "tEXt", "acTL", "eXIf"],
)
def test_what_a_png_has_beside_its_pixels_costs_nothing(extra: bytes) -> None:
    """Texts are not unpacked, a profile only up to its bound, and none of them spoils the picture."""
    file = png.examine(png_with(extra), LIMITS)
    assert file.body == png_with()
    assert file.profile == b""
    assert images.decode(png_with(extra)) == PLAIN


def test_every_kind_of_png_keeps_what_its_pixels_need() -> None:
    """Palettes, what is clear of them, and interlaced rows."""
    image = Image.new("P", (9, 9), 1)
    image.putpalette([1, 2, 3, 200, 100, 50])
    out = BytesIO()
    image.save(out, "PNG", transparency=0)
    assert png.examine(out.getvalue(), LIMITS).body == out.getvalue()
    assert images.decode(out.getvalue()).data[:3] == bytes((200, 100, 50))


def test_a_jpeg_of_many_segments_is_refused() -> None:
    """Four bytes each: eight million fit into a request."""
    with pytest.raises(ImageError, match="has more than 1000 segments"):
        images.decode(jpeg_with(segment(0xFE) * 200_000))


@pytest.mark.parametrize("flood", [b"\xff", b"\xff\x00", b"\xff\x01", b"\xff\xd0"])
def test_junk_between_segments_is_refused(flood: bytes) -> None:
    """Decoders pass over it byte by byte."""
    with pytest.raises(ImageError, match=r"truncated or damaged|segments"):
        images.decode(jpeg_with(segment(0xFE) + flood * (4 << 20)))


def test_a_jpeg_without_what_it_does_not_need_is_the_same_picture() -> None:
    """Comments, thumbnails, foreign profiles and tags go; how its colours are stored stays."""
    extra = (
        segment(0xFE, b"words")
        + segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>")
        + segment(0xED, b"x" * 900)
    )
    file = jpeg.examine(jpeg_with(extra), LIMITS)
    assert file.body == jpeg_with(b"")
    assert images.decode(jpeg_with(extra)) == images.decode(jpeg_with(b""))


def test_the_first_picture_of_several_is_read() -> None:
    """Phones put a depth map or a video after the end of a picture."""
    second = jpeg_of_scans(2000)
    data = jpeg_with(segment(0xE2, b"MPF\0" + bytes(80)))
    assert images.decode(data + second) == images.decode(jpeg_with(b""))


def test_restart_markers_are_part_of_a_scan() -> None:
    """One after each block, as DRI says, or a flood of them that stands for nothing."""
    out = BytesIO()
    Image.linear_gradient("L").save(out, "JPEG", restart_marker_blocks=1)
    assert images.decode(out.getvalue()).width == 256
    flood = out.getvalue()[:-2] + b"\xff\xd0" * 1_000_000 + b"\xff\xd9"
    assert images.decode(flood) == images.decode(out.getvalue())


def test_a_jpeg_of_two_frames_is_refused() -> None:
    """Which size would count cannot be known."""
    data = jpeg_with(segment(0xC0, b"\x08\0\x40\0\x40\x01\x01\x11\0"))
    with pytest.raises(ImageError, match="truncated or damaged"):
        images.decode(data)


def test_a_jpeg_says_its_size_before_it_is_decoded() -> None:
    """As other files do."""
    with pytest.raises(ImageError, match="is 64x64 pixels; no side may have more than 60"):
        jpeg.examine(jpeg_with(b""), ImageLimits(max_side=60))


@pytest.mark.parametrize("kind", [b"ABCD", b"EXIF", b"XMP ", b"ICCP", b"ALPH"])
def test_a_webp_of_many_chunks_is_refused(kind: bytes) -> None:
    """Whatever they are called."""
    with pytest.raises(ImageError, match="has more than 1000 chunks"):
        images.decode(webp_with(*[(kind, b"")] * 100_000))


def test_a_webp_without_what_it_does_not_need_is_the_same_picture() -> None:
    """Tags, texts and unknown chunks go, and the flags that announce them."""
    extra = [(b"XMP ", b"x" * (4 << 20)), (b"ABCD", b"xyz"), (b"EXIF", b"\xff" * 999)]
    data = webp_with(*extra, flags=0x0C)
    assert webp.examine(data, LIMITS).body == webp_with()
    assert images.decode(data) == images.decode(webp_with())


def test_a_webp_of_frames_is_refused() -> None:
    """Two are an animation, however small they are."""
    out = BytesIO()
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue", "green")]
    frames[0].save(out, "WEBP", save_all=True, append_images=frames[1:])
    with pytest.raises(ImageError, match="is an animation"):
        images.decode(out.getvalue())


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_exif_block_costs_nothing_but_its_orientation(orientation: int) -> None:
    """5,000 tags that point at the same 60 KB would be 300 MB where each is read."""
    block = exif_block(orientation, tags=3000, value_bytes=20_000)
    picture = Image.new("RGB", (16, 8), (10, 20, 30))
    for kind in ("JPEG", "PNG", "WEBP"):
        out = BytesIO()
        picture.save(out, kind, exif=b"Exif\0\0" + block)
        tracemalloc.start()
        try:
            read = images.decode(out.getvalue())
            assert tracemalloc.get_traced_memory()[1] < 1 << 20
        finally:
            tracemalloc.stop()
        assert (read.width, read.height) == ((16, 8) if orientation == 1 else (8, 16)), kind


def test_files_as_libraries_write_them_are_kept_whole() -> None:
    """Every format, with profile and orientation."""
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 24))
    for kind in ("JPEG", "PNG", "WEBP"):
        out = BytesIO()
        picture.save(out, kind, icc_profile=srgb_profile(), exif=b"Exif\0\0" + exif_block(6))
        plain = BytesIO()
        picture.save(plain, kind)
        file = {"JPEG": jpeg, "PNG": png, "WEBP": webp}[kind].examine(out.getvalue(), LIMITS)
        assert (file.profile, file.exif) == (srgb_profile(), exif_block(6)), kind
        assert images.decode(file.body) == images.decode(plain.getvalue())
        assert images.decode(out.getvalue()).width == 24
