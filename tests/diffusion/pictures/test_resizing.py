"""Pictures to another size: stretched, cropped, padded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.inpainting import finish, region
from sdgrpc.diffusion.pictures.resizing import resized
from sdgrpc.domain import Picture, ResizeMode, TaskKind
from sdgrpc.images import to_image, to_picture
from tests.support.tasks import draw, pixels_of, task

SIDES = st.integers(1, 90)


def thirds(width: int = 96, height: int = 32) -> Image.Image:
    """Red, green and blue bars side by side."""
    image = Image.new("RGB", (3, 1))
    image.putdata([(255, 0, 0), (0, 255, 0), (0, 0, 255)])
    return image.resize((width, height), Image.Resampling.NEAREST)


def colours(image: Image.Image, y: int) -> str:
    """The colours of a row from left to right, each once: `rgb`."""
    names = [" rgb"[1 + int(np.argmax(image.getpixel((x, y))))] for x in range(image.width)]
    return "".join(name for name, before in zip(names, [None, *names], strict=False) if name != before)


def test_stretch_keeps_everything_but_the_proportions() -> None:
    """All three bars, a third of the width each."""
    image = resized(thirds(), 48, 48)
    assert (image.size, colours(image, 20)) == ((48, 48), "rgb")
    assert image == thirds().resize((48, 48), Image.Resampling.LANCZOS)


def test_crop_keeps_the_middle() -> None:
    """Three squares side by side become the middle one; upright, too."""
    image = resized(thirds(), 16, 16, ResizeMode.CROP)
    upright = resized(thirds().rotate(90, expand=True), 64, 64, ResizeMode.CROP)
    assert {colours(each, y) for each in (image, upright) for y in range(each.height)} == {"g"}


def test_pad_keeps_the_whole_and_repeats_its_edges() -> None:
    """The bars lie in the middle third, at their proportions, and go on above and below."""
    image = resized(thirds(), 48, 48, ResizeMode.PAD)
    assert [colours(image, y) for y in (0, 20, 47)] == ["rgb"] * 3
    inner = thirds().resize((48, 16), Image.Resampling.LANCZOS)
    assert image.crop((0, 16, 48, 32)) == inner
    assert image.crop((0, 0, 48, 1)) == inner.crop((0, 0, 48, 1))
    upright = resized(thirds().rotate(90, expand=True), 48, 48, ResizeMode.PAD)
    assert {colours(upright, y) for y in range(48)} == {"r", "g", "b"}


@pytest.mark.parametrize("mode", ResizeMode)
@given(SIDES, SIDES, SIDES, SIDES)
def test_every_size_is_met(mode: ResizeMode, width: int, height: int, to_width: int, to_height: int) -> None:
    """And a picture of one colour stays one: nothing black comes in."""
    image = resized(Image.new("RGB", (width, height), (10, 200, 30)), to_width, to_height, mode)
    assert image.size == (to_width, to_height)
    assert image.getcolors() == [(to_width * to_height, (10, 200, 30))]


@pytest.mark.parametrize("mode", ResizeMode)
def test_equal_proportions_are_the_same_in_every_mode(mode: ResizeMode) -> None:
    """Nothing sticks out, nothing is left free."""
    assert resized(thirds(), 48, 16, mode) == resized(thirds(), 48, 16)


@pytest.mark.parametrize(("mode", "white"), [("stretch", (21, 43)), ("crop", (0, 64)), ("pad", (21, 43))])
def test_the_mask_goes_along(mode: str, white: tuple[int, int]) -> None:
    """It covers the green bar after every mode, and what it does not cover is the input's to the pixel."""
    mask = Image.new("L", (96, 32))
    mask.paste(255, (32, 0, 64, 32))
    asked = task(
        TaskKind.INPAINT,
        image=to_picture(thirds()),
        mask=to_picture(mask),
        resize_mode=ResizeMode(mode),
        steps=2,
    )
    part = region(asked)
    row = np.asarray(part.mask)[32]
    assert (int(np.argmax(row > 127)), 64 - int(np.argmax(row[::-1] > 127))) == white
    drawn = Picture(64, 64, 3, bytes(3 * 64 * 64))
    result = pixels_of(finish(asked, [drawn])[0])
    kept = np.asarray(part.mask) == 0
    assert np.array_equal(result[kept], np.asarray(part.image)[kept])


def test_transform_draws_from_the_resized_picture(model: Model) -> None:
    """With strength 0 the latents are those of the picture that `resized` makes."""
    cropped = task(TaskKind.TRANSFORM, image=to_picture(thirds()), resize_mode=ResizeMode.CROP, strength=0.0)
    ready = task(
        TaskKind.TRANSFORM, image=to_picture(resized(thirds(), 64, 64, ResizeMode.CROP)), strength=0.0
    )
    assert to_image(ready.image).size == (64, 64)
    assert draw(model, cropped).equal(draw(model, ready))
