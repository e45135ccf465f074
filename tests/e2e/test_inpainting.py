"""Inpainting over a real port: what is kept to the pixel, at any size, from any kind of file."""

from __future__ import annotations

from functools import cache
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, ImageDraw

from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import inpaint

SIZE = (141, 107)  # no multiples of 8, and odd
DISC = (50, 30, 96, 82)


def scene(mode: str = "RGB", size: tuple[int, int] = SIZE) -> Image.Image:
    """Colours of which no two neighbours are equal, as RGB, or what another mode keeps of them."""
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    pixels = np.stack([x * 255 // size[0], y * 255 // size[1], (x * 7 + y * 13) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


def disc(mode: str = "L", size: tuple[int, int] = SIZE) -> Image.Image:
    """A white disc on black."""
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(DISC, fill=255)
    return mask.convert(mode)


def file(image: Image.Image, kind: str = "PNG", **options) -> pb.Image:
    """The image as a request has it."""
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return pb.Image(data=buffer.getvalue())


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def redrawn(stub, image: pb.Image, mask: pb.Image, **changes) -> np.ndarray:
    """The result's pixels, `[height, width, 3]`, of few steps."""
    sampling = pb.Sampling(steps=4, seed=3)
    request = inpaint(prompt="a yellow circle", image=image, mask=mask, sampling=sampling, **changes)
    (answer,) = (event.image.image for event in stub.Inpaint(request) if event.HasField("image"))
    with Image.open(BytesIO(answer.data)) as opened:
        assert opened.size == (answer.width, answer.height)
        return np.asarray(opened.convert("RGB")).astype(int)


def distance_from(mask: np.ndarray, reach: int) -> np.ndarray:
    """Whether a pixel is within `reach` pixels, along each axis, of one that is masked."""
    padded = np.pad(mask, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
    return windows.any(axis=(2, 3))  # type: ignore[return-value]


@pytest.mark.parametrize("blur", [0.0, 2.5])
@pytest.mark.parametrize("strength", [1.0, 0.6, 0.0])
@pytest.mark.parametrize("options", [{}, {"crop_padding": 7}], ids=["whole", "crop"])
def test_what_is_black_is_kept_to_the_pixel(stub, options: dict, strength: float, blur: float) -> None:
    """At the input's own size, beyond the blur's width, whole or a crop, from noise or from the input."""
    known, mask = np.asarray(scene()).astype(int), np.asarray(disc()) > 0
    result = redrawn(
        stub,
        file(scene()),
        file(disc()),
        strength=strength,
        mask_options=pb.MaskOptions(blur=blur, **options),
    )
    assert result.shape == known.shape
    changed = (result != known).any(axis=2)
    reached = distance_from(mask, int(3 * blur) + 1) if blur else mask
    assert not (changed & ~reached).any()
    core = ~distance_from(~mask, 8)
    assert changed[core].all(axis=None) or not strength
    assert np.abs(result - known)[core].mean() > 20 * strength


def test_a_size_that_is_asked_for_scales_the_whole(stub) -> None:
    """The result has the size that is drawn, one side in the input's proportions; with a crop the input's."""
    sizes = [
        redrawn(stub, file(scene()), file(disc()), **changes).shape[1::-1]
        for changes in (
            {"width": 136, "height": 104},
            {"width": 128},
            {"width": 64, "height": 64, "mask_options": pb.MaskOptions(crop_padding=4)},
        )
    ]
    assert sizes == [(136, 104), (128, 96), SIZE]


def with_alpha(mode: str) -> tuple[Image.Image, np.ndarray]:
    """A picture whose left half is half visible, and what a viewer shows of it over white."""
    image = scene("RGB" if mode == "RGBA" else "L")
    colours = np.asarray(image.convert("RGB")).astype(float)
    alpha = Image.new("L", SIZE, 255)
    alpha.paste(51, (0, 0, 40, SIZE[1]))
    image.putalpha(alpha)
    share = (np.asarray(alpha) / 255)[..., None]
    return image, colours * share + 255 * (1 - share)


def sixteen_bits() -> tuple[Image.Image, np.ndarray]:
    """A grey ramp over all of 16 bits, of which the first 8 are seen."""
    x = np.arange(SIZE[0]) * 65535 // (SIZE[0] - 1)
    ramp = np.broadcast_to(x, SIZE[::-1]).astype(np.uint16)
    return Image.fromarray(ramp), np.stack([ramp >> 8] * 3, axis=-1).astype(float)


@cache
def inputs() -> dict[str, tuple[pb.Image, np.ndarray, float]]:
    """Kinds of files: each with what is to be seen of it, computed here, and by how much it may differ."""
    rgb = np.asarray(scene()).astype(float)
    grey = np.asarray(scene("L").convert("RGB")).astype(float)
    palette = scene().quantize(64)
    entries = np.asarray(palette.getpalette()).reshape(-1, 3).astype(float)
    indices = np.asarray(palette)
    clear = np.where((indices == indices[0, 0])[..., None], 255.0, entries[indices])
    deep, deep_seen = sixteen_bits()
    turned = scene().transpose(Image.Transpose.ROTATE_90)
    ramp = Image.linear_gradient("L").resize(SIZE)
    inks = Image.merge("CMYK", [ramp, ramp.rotate(180), Image.new("L", SIZE, 90), Image.new("L", SIZE, 40)])
    paper = (255 - np.asarray(inks)[..., :3].astype(float)) * (255 - 40) / 255
    rgba, rgba_seen = with_alpha("RGBA")
    la, la_seen = with_alpha("LA")
    return {
        "turned": (file(turned, exif=oriented(6)), rgb, 0),
        "alpha": (file(rgba), rgba_seen, 1),
        "grey and alpha": (file(la), la_seen, 1),
        "grey": (file(scene("L")), grey, 0),
        "palette": (file(palette), entries[indices], 0),
        "palette with a transparent colour": (file(palette, transparency=int(indices[0, 0])), clear, 0),
        "16-bit grey": (file(deep), deep_seen, 0),
        "four inks": (file(inks, "JPEG", quality=100, subsampling=0), paper, 3),
    }


@pytest.mark.parametrize("kind", inputs())
def test_any_kind_of_image_comes_out_right(stub, kind: str) -> None:
    """Around the mask the result is what a viewer shows of the file: upright, opaque, of 8 bits, in RGB."""
    image, seen, tolerance = inputs()[kind]
    result = redrawn(stub, image, file(disc()))
    kept = np.asarray(disc()) == 0
    assert result.shape == seen.shape
    assert np.abs(result - seen)[kept].max() <= tolerance


@cache
def masks() -> dict[str, pb.Image]:
    """One mask in several kinds of files."""
    white, hole = Image.new("RGBA", SIZE, "white"), disc()
    white.putalpha(hole)
    grey = Image.new("LA", SIZE, 255)
    grey.putalpha(hole)
    palette = Image.new("P", SIZE, 0)
    palette.putpalette([0, 0, 0, 255, 255, 255])
    palette.paste(1, mask=hole)
    clear = palette.copy()
    clear.putpalette([255, 0, 255, 255, 255, 255])
    deep = Image.fromarray(np.asarray(hole).astype(np.uint16) << 8)
    turned = hole.transpose(Image.Transpose.ROTATE_270)
    return {
        "RGB": file(hole.convert("RGB")),
        "bilevel": file(hole.convert("1")),
        "white strokes on nothing": file(white),
        "grey strokes on nothing": file(grey),
        "palette": file(palette),
        "palette with a transparent colour": file(clear, transparency=0),
        "16-bit grey": file(deep),
        "turned": file(turned, exif=oriented(8)),
        "four inks": file(hole.convert("CMYK"), "JPEG", quality=100, subsampling=0),
    }


@pytest.mark.parametrize("kind", masks())
def test_any_kind_of_mask_masks_the_same(stub, kind: str) -> None:
    """White is redrawn, black and what is transparent are kept, whatever the file."""
    expected = redrawn(stub, file(scene()), file(disc()))
    result = redrawn(stub, file(scene()), masks()[kind])
    assert np.abs(result - expected).max() <= (3 if kind == "four inks" else 0)  # a JPEG's rounding
