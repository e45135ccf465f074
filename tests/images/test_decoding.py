"""Image files in and out."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
import zlib
from io import BytesIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from sdgrpc import images
from sdgrpc.domain import Picture
from sdgrpc.images import ImageError, ImageLimits

SIZE = (40, 24)


def gradient(mode: str = "RGB") -> Image.Image:
    ramp = Image.linear_gradient("L").resize(SIZE)
    return Image.merge("RGB", [ramp, ramp.rotate(180), Image.new("L", SIZE, 90)]).convert(mode)


def file_of(image: Image.Image, media_type: str = "image/png", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, media_type.removeprefix("image/"), **options)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(
    width: int, height: int, *, depth: int, colour: int, rows: bytes, palette: bytes = b"", clear: bytes = b""
) -> bytes:
    """A PNG written by hand: Pillow cannot write 16 bits per colour, nor a header without its pixels.

    `clear` says what is transparent: a grey or colour of 16 bits each, or an alpha for each palette entry.
    """
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    optional = [part for part in ((b"PLTE", palette), (b"tRNS", clear)) if part[1]]
    parts = ((b"IHDR", header), *optional, (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*part) for part in parts)


def pixel(picture: Picture, x: int, y: int) -> tuple[int, ...]:
    start = (y * picture.width + x) * picture.channels
    return tuple(picture.data[start : start + picture.channels])


@pytest.mark.parametrize("media_type", images.MEDIA_TYPES)
def test_a_picture_survives_its_file(media_type: str) -> None:
    """Every format gives back size and, but for lossy ones' rounding, pixels."""
    picture = images.to_picture(gradient())
    file = images.encode(picture, media_type, quality=100)
    back = images.decode(file.data)
    assert (file.media_type, file.width, file.height) == (media_type, *SIZE)
    assert (back.width, back.height, back.channels) == (*SIZE, 3)
    furthest = max(abs(a - b) for a, b in zip(picture.data, back.data, strict=True))
    assert furthest <= (0 if media_type == "image/png" else 24)


@pytest.mark.parametrize("media_type", images.MEDIA_TYPES)
def test_the_same_picture_gives_the_same_bytes(media_type: str) -> None:
    """Encoding is deterministic."""
    picture = images.to_picture(gradient())
    first = images.encode(picture, media_type, quality=80, text="a\nSteps: 3")
    assert first == images.encode(picture, media_type, quality=80, text="a\nSteps: 3")


@pytest.mark.parametrize("text", ["a cat, <lora:x:1>\nSteps: 20", "ein Schloß 城堡 🏰\nSteps: 2"])
def test_the_parameters_are_where_a1111_looks(text: str) -> None:
    """PNG keeps it in `parameters`, JPEG and WebP in EXIF's user comment; without text there is none."""
    picture = images.to_picture(gradient())
    with Image.open(BytesIO(images.encode(picture, "image/png", text=text).data)) as png:
        assert png.text == {"parameters": text}  # type: ignore[attr-defined]
    for media_type in ("image/jpeg", "image/webp"):
        with Image.open(BytesIO(images.encode(picture, media_type, text=text).data)) as image:
            comment = image.getexif().get_ifd(images.EXIF_IFD)[images.USER_COMMENT]
        assert comment.removeprefix(b"UNICODE\0").decode("utf-16-be") == text
    for media_type in images.MEDIA_TYPES:
        with Image.open(BytesIO(images.encode(picture, media_type).data)) as image:
            assert not image.getexif()
            assert "parameters" not in image.info


@pytest.mark.parametrize("character", ["a", "🏰"])
def test_a_text_too_long_for_exif_is_cut(character: str) -> None:
    """A JPEG's EXIF block holds 64 KiB; a longer text ends in an ellipsis instead of failing the job."""
    file = images.encode(images.to_picture(gradient()), "image/jpeg", text=character * 70_000)
    with Image.open(BytesIO(file.data)) as image:
        comment = image.getexif().get_ifd(images.EXIF_IFD)[images.USER_COMMENT]
    text = comment.removeprefix(b"UNICODE\0").decode("utf-16-be")
    assert set(text[:-1]) == {character}
    assert text.endswith("…")


def test_quality_changes_the_size_of_a_jpeg() -> None:
    """`quality` is used."""
    picture = images.to_picture(gradient())
    sizes = [len(images.encode(picture, "image/jpeg", quality=quality).data) for quality in (10, 95)]
    assert sizes[0] < sizes[1]


def test_an_unknown_media_type_is_refused() -> None:
    """Encoding to anything else is a programming error."""
    with pytest.raises(ValueError, match="image/gif"):
        images.encode(images.to_picture(gradient()), "image/gif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    """A photo comes out as a viewer shows it."""
    upright = gradient()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert images.decode(file_of(stored, exif=exif)) == images.to_picture(upright)


def test_exif_orientation_of_masks_and_of_deep_greys() -> None:
    """A mask turns like its image; what is converted beforehand turns too."""
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is the right side
    stored = Image.new("L", (8, 10), 0)
    stored.putpixel((0, 0), 255)
    deep = Image.new("I;16", (8, 10), 0)
    deep.putpixel((0, 0), 0xFF00)
    for image in (stored, deep):
        mask = images.decode_mask(file_of(image, exif=exif))
        assert (mask.width, mask.height) == (10, 8)
        assert [at for at, value in enumerate(mask.data) if value] == [9]
    large = stored.resize((64, 80), Image.Resampling.NEAREST)
    photo = images.decode_mask(file_of(large, "image/jpeg", exif=exif, quality=100))
    assert (photo.width, photo.height) == (80, 64)
    assert [pixel(photo, x, y)[0] > 200 for x, y in ((4, 4), (76, 4), (76, 60))] == [False, True, False]


@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_a_broken_exif_block_does_not_spoil_the_picture() -> None:
    """Pixels count, even if their EXIF block is nonsense."""
    data = file_of(gradient(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert images.decode(data) == images.to_picture(gradient())


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGBA"])
def test_other_modes_become_rgb(mode: str) -> None:
    """Grey, bilevel, palette and alpha files become RGB with the colours a viewer shows."""
    image = gradient(mode)
    assert images.decode(file_of(image)) == images.to_picture(image.convert("RGB"))


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    """16-bit grey and colour keep their first 8 bits."""
    values = (0x0000, 0x1234, 0x8080, 0xFF00, 0xFFFF, 0x0100, 0x7FFF, 0x4000)
    for colour, channels in ((0, 1), (2, 3)):
        row = b"\0" + b"".join(struct.pack(">H", value) * channels for value in values)
        picture = images.decode(png_file(8, 8, depth=16, colour=colour, rows=row * 8))
        assert [pixel(picture, x, 3) for x in range(8)] == [(value >> 8,) * 3 for value in values]


def test_transparency_is_laid_over_white() -> None:
    """An invisible pixel is white whatever its colour says, a half visible one is half way there."""
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 255))
    image.putpixel((0, 0), (10, 20, 30, 0))
    image.putpixel((1, 0), (0, 0, 0, 128))
    picture = images.decode(file_of(image))
    assert pixel(picture, 0, 0) == (255, 255, 255)
    assert pixel(picture, 1, 0) == pytest.approx((127, 127, 127), abs=1)
    assert pixel(picture, 2, 0) == (200, 0, 0)


def test_a_transparent_palette_colour_is_laid_over_white() -> None:
    """So are the transparent entries of a palette."""
    image = Image.new("P", (8, 8), 0)
    image.putpalette([9, 9, 9, 1, 2, 3])
    image.putpixel((3, 3), 1)
    picture = images.decode(file_of(image, transparency=0))
    assert (pixel(picture, 0, 0), pixel(picture, 3, 3)) == ((255, 255, 255), (1, 2, 3))


def test_palettes_with_several_alphas() -> None:
    """Each entry has its own, and one that is not named is opaque; a mask is over black instead."""
    palette = bytes((10, 20, 30, 200, 0, 0, 0, 200, 0, 255, 255, 255))
    rows = b"\0\x1b\x1b" * 8  # 0 1 2 3 0 1 2 3, of two bits each
    data = png_file(8, 8, depth=2, colour=3, rows=rows, palette=palette, clear=bytes((0, 51)))
    picture, mask = images.decode(data), images.decode_mask(data)
    # 200 * 0.2 + 255 * 0.8, and 0 * 0.2 + 255 * 0.8
    expected = [(255, 255, 255), (244, 204, 204), (0, 200, 0), (255, 255, 255)]
    assert [pixel(picture, x, 3) for x in range(4)] == expected
    # 0.299 * 200 * 0.2, and 0.587 * 200
    assert [pixel(mask, x, 3) for x in range(4)] == [(0,), (12,), (117,), (255,)]


# By depth: eight samples, which of them is transparent, and the greys to be seen, None for that one.
KEYED = {
    1: (b"\x53", 1, [0, None, 0, None, 0, 0, None, None]),
    2: (b"\x1b\x1b", 1, [0, None, 170, 255, 0, None, 170, 255]),
    4: (b"\x01\x23\x8f\xf0", 3, [0, 17, 34, None, 136, 255, 255, 0]),
    8: (bytes(range(0, 256, 32)), 64, [0, 32, None, 96, 128, 160, 192, 224]),
    16: (
        struct.pack(">8H", 0, 0x34, 0x1234, 0x12FF, 0x3412, 0xFF34, 0x8080, 0xFFFF),
        0x1234,
        [0, 0, None, 0x12, 0x34, 0xFF, 0x80, 0xFF],
    ),
}


@pytest.mark.parametrize(
    ("channels", "depth"), [(1, 1), (1, 2), (1, 4), (1, 8), (1, 16), (3, 8), (3, 16)], ids=str
)
def test_the_transparent_colour_of_files_without_alpha(channels: int, depth: int) -> None:
    """All of its bits count, none of its neighbours is transparent with it, and it is white or not masked."""
    row, clear, expected = KEYED[depth]
    if channels == 3:
        size = depth // 8
        row = b"".join(row[at : at + size] * 3 for at in range(0, len(row), size))
    rows, clears = (b"\0" + row) * 8, struct.pack(">H", clear) * channels
    data = png_file(8, 8, depth=depth, colour=channels - 1, rows=rows, clear=clears)
    picture, mask = images.decode(data), images.decode_mask(data)
    shown = [255 if level is None else level for level in expected]
    assert [pixel(picture, x, 3) for x in range(8)] == [(level,) * 3 for level in shown]
    assert [pixel(mask, x, 3)[0] for x in range(8)] == [level or 0 for level in expected]


def test_sixteen_bits_with_alpha() -> None:
    """Grey and colour with an alpha of 16 bits: 0x40 over white, or over black for a mask."""
    alphas = (0, 0x8000, 0xFF00)
    for colour, shade in ((4, (0x4000,)), (6, (0x4000, 0x4000, 0x4000))):
        values = [value for alpha in (*alphas, 0, 0, 0, 0, 0) for value in (*shade, alpha)]
        row = b"\0" + struct.pack(f">{len(values)}H", *values)
        data = png_file(8, 8, depth=16, colour=colour, rows=row * 8)
        picture, mask = images.decode(data), images.decode_mask(data)
        # 64 + (255 - 64) * (1 - 128 / 255) = 159.1, and 64 * 128 / 255 = 32.1
        assert [pixel(picture, x, 3)[0] for x in range(3)] == [255, 159, 64]
        assert [pixel(mask, x, 3)[0] for x in range(3)] == [0, 32, 64]


def test_jpegs_of_four_inks() -> None:
    """CMYK as Photoshop writes it, inverted: (255 - ink) * (255 - black) / 255, within JPEG's rounding."""
    for inks, expected in (((255, 0, 0, 0), (0, 255, 255)), ((100, 50, 20, 30), (137, 181, 207))):
        data = file_of(Image.new("CMYK", (16, 16), inks), "image/jpeg", quality=100)
        assert pixel(images.decode(data), 5, 5) == pytest.approx(expected, abs=2)
        luminance = 0.299 * expected[0] + 0.587 * expected[1] + 0.114 * expected[2]
        assert pixel(images.decode_mask(data), 5, 5)[0] == pytest.approx(luminance, abs=2)


def test_a_mask_is_luminance() -> None:
    """White is 255, black 0, grey between, from RGB as from grey files."""
    image = Image.new("RGB", (8, 8), "black")
    image.putpixel((0, 0), (255, 255, 255))
    image.putpixel((1, 0), (128, 128, 128))
    mask = images.decode_mask(file_of(image))
    assert mask.channels == 1
    assert [pixel(mask, x, 0) for x in range(3)] == [(255,), (128,), (0,)]
    assert mask == images.decode_mask(file_of(image.convert("L")))


def test_a_mask_of_white_strokes_on_nothing() -> None:
    """Transparent parts of a mask are kept, even where their hidden colour is white."""
    image = Image.new("RGBA", (8, 8), (255, 255, 255, 0))
    image.putpixel((0, 0), (255, 255, 255, 255))
    mask = images.decode_mask(file_of(image))
    assert [pixel(mask, x, 0) for x in range(2)] == [(255,), (0,)]


@pytest.mark.parametrize("media_type", images.MEDIA_TYPES)
def test_every_truncation_is_refused(media_type: str) -> None:
    """A file cut anywhere before its last bytes never gives a picture."""
    noise = Image.effect_noise((64, 64), 80).convert("RGB")
    data = file_of(noise, media_type, **({"lossless": True} if media_type == "image/webp" else {}))
    for tenth in range(10):
        with pytest.raises(ImageError, match=r"truncated or damaged|not a PNG|empty"):
            images.decode(data[: len(data) * tenth // 10])


@pytest.mark.filterwarnings("ignore::UserWarning")
@settings(max_examples=150, deadline=None)
@given(
    media_type=st.sampled_from(images.MEDIA_TYPES),
    changes=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    length=st.floats(0, 1),
)
def test_hostile_files_give_a_picture_or_a_sentence(media_type: str, changes: list, length: float) -> None:
    """Whatever bytes are changed or missing, nothing but ImageError is raised, and no limit is passed."""
    data = bytearray(file_of(gradient(), media_type))
    for place, value in changes:
        data[int(place * len(data))] = value
    limits = ImageLimits(max_pixels=4000, max_side=100)
    for read in (images.decode, images.decode_mask):
        with contextlib.suppress(ImageError):
            picture = read(bytes(data[: int(length * len(data))]), limits)
            assert len(picture.data) == picture.width * picture.height * picture.channels
            assert picture.width * picture.height <= 4000


@pytest.mark.parametrize("data", [b"GIF89a" + b"\0" * 40, b"<svg/>", b"\0" * 100, b"BM" + b"\0" * 60])
def test_what_is_no_image_is_refused(data: bytes) -> None:
    """Other formats are refused by their signature."""
    with pytest.raises(ImageError, match="is not a PNG, JPEG or WebP file"):
        images.decode(data)


def test_an_animation_is_refused() -> None:
    """Which of its pictures was meant cannot be known."""
    frames = [gradient(), gradient().rotate(180)]
    for kind in ("png", "webp"):
        buffer = BytesIO()
        frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageError, match="animation"):
            images.decode(buffer.getvalue())


def test_a_strip_is_refused() -> None:
    """60000x1 pixels are few, and no picture."""
    with pytest.raises(ImageError, match="is 60000x1 pixels; no side may have more than 16384"):
        images.decode(png_file(60000, 1, depth=8, colour=0, rows=b"\0" * 60001))


def test_too_small_a_picture_is_refused() -> None:
    """Below 8 pixels nothing is left after rounding down."""
    with pytest.raises(ImageError, match="is 7x9 pixels; each side needs at least 8"):
        images.decode(file_of(Image.new("RGB", (7, 9))))


def test_too_large_a_file_is_refused() -> None:
    """The bytes are counted before anything is read."""
    with pytest.raises(ImageError, match=r"has \d+ bytes; the most is 50"):
        images.decode(file_of(gradient()), ImageLimits(max_bytes=50))


@pytest.mark.parametrize("kind", ["png", "vp8", "vp8l", "vp8x"])
def test_a_bomb_is_refused_by_its_header(kind: str) -> None:
    """Memory stays small: the size is read from the header, and no canvas is made for it."""
    side = 16000
    less = side - 1
    header = {
        "vp8": b"VP8 " + struct.pack("<I", 10) + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", side, side),
        "vp8l": b"VP8L" + struct.pack("<IBI", 10, 0x2F, less | less << 14) + b"\0" * 5,
        "vp8x": b"VP8X" + struct.pack("<II", 10, 0) + less.to_bytes(3, "little") * 2,
    }
    if kind == "png":
        data = png_file(side, side, depth=8, colour=2, rows=b"")
    else:
        data = b"RIFF" + struct.pack("<I", 22) + b"WEBP" + header[kind]
    tracemalloc.start()
    try:
        with pytest.raises(ImageError, match="is 16000x16000 pixels, 256000000 in all; the most is"):
            images.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exif": b"Exif\0\0x"}]
)
def test_the_size_of_real_webp_files_is_read(options: dict) -> None:
    """Each of the three layouts is measured as its decoder does."""
    image = gradient().resize((37, 61))
    picture = images.decode(file_of(image, "image/webp", **options))
    assert (picture.width, picture.height) == (37, 61)
    with pytest.raises(ImageError, match="is 37x61 pixels; no side may have more than 60"):
        images.decode(file_of(image, "image/webp", **options), ImageLimits(max_side=60))
