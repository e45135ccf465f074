"""Masks: what is kept to the pixel, blur, and the crop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.pictures.inpainting import crop_box, finish, region
from sdgrpc.domain import MaskOptions, Picture, Task, TaskKind
from tests.support.tasks import box_mask, draw, gradient, pixels_of, task


def grey(width: int, height: int, level: int) -> Picture:
    """An RGB picture of one grey."""
    return Picture(width, height, 3, bytes([level]) * (width * height * 3))


def finished(asked: Task, level: int = 200) -> np.ndarray:
    """The pixels of a task whose redrawn picture is all of one grey."""
    return pixels_of(finish(asked, [grey(asked.width, asked.height, level)])[0]).astype(int)


def test_black_is_kept_to_the_pixel_and_white_is_redrawn(model: Model) -> None:
    """A real picture equals the input outside the mask and is the model's inside."""
    asked = task(TaskKind.INPAINT)
    drawn = decode(model, draw(model, asked))
    result, known, new = (pixels_of(one) for one in (finish(asked, drawn)[0], asked.image, drawn[0]))
    inside = pixels_of(asked.mask)[..., 0] == 255
    assert np.array_equal(result[~inside], known[~inside])
    assert np.array_equal(result[inside], new[inside])
    assert not np.array_equal(new[~inside], known[~inside])


def test_grey_blends() -> None:
    """The result lies between the input and the redrawn picture by the mask's share."""
    asked = task(TaskKind.INPAINT, mask=box_mask(level=51), image=grey(64, 64, 0))
    assert finished(asked)[32, 32].tolist() == [40, 40, 40]


def test_an_empty_mask_returns_the_input(model: Model) -> None:
    """Nothing is redrawn where nothing is masked, with or without a crop."""
    black = box_mask(level=0)
    for options in (MaskOptions(), MaskOptions(crop_padding=4), MaskOptions(blur=3.0)):
        asked = task(TaskKind.INPAINT, mask=black, mask_options=options, steps=2)
        assert finish(asked, decode(model, draw(model, asked))) == [asked.image]


def test_other_kinds_pass_unchanged() -> None:
    """There is nothing to paste back without a mask."""
    pictures = [gradient()]
    assert finish(task(TaskKind.TRANSFORM), pictures) == pictures


def test_blur_softens_the_edge_only() -> None:
    """The blend falls from white to black within a few blurs of the edge; beyond, pixels are kept."""
    mask = box_mask(box=(0, 0, 32, 64))
    asked = task(TaskKind.INPAINT, mask=mask, image=grey(64, 64, 0), mask_options=MaskOptions(blur=2.0))
    row = finished(asked)[32, :, 0]
    assert row[0] == 200
    assert 80 < row[31] < 120
    assert all(np.diff(row) <= 0)
    assert set(row[42:]) == {0}
    sharp = finished(replace(asked, mask_options=MaskOptions()))[32, :, 0]
    assert set(sharp) == {0, 200}


def test_the_latent_mask_is_between_0_and_1_and_keeps_greys() -> None:
    """One value per latent cell."""
    mask = region(task(TaskKind.INPAINT, mask=box_mask(level=102))).latent_mask(8, 8)
    assert mask.shape == (1, 1, 8, 8)
    assert sorted(set(mask.flatten().tolist())) == pytest.approx([0.0, 0.4])


def test_an_input_of_another_size_is_kept_in_the_tasks_size() -> None:
    """Without a crop the result has the task's size and keeps the resized input."""
    asked = task(
        TaskKind.INPAINT,
        image=gradient(100, 80),
        mask=box_mask(100, 80, (40, 30, 60, 50)),
        width=64,
        height=64,
    )
    result = finished(asked)
    assert result.shape == (64, 64, 3)
    assert np.array_equal(result[:16], np.asarray(region(asked).image)[:16])


def test_an_input_of_another_size_can_keep_its_own() -> None:
    """What is drawn is scaled back to it, what is kept is not scaled at all."""
    box = (40, 30, 60, 50)
    asked = task(TaskKind.INPAINT, image=gradient(103, 82), mask=box_mask(103, 82, box), width=96, height=80)
    kept = finished(replace(asked, keeps_size=True))
    expected = pixels_of(asked.image).astype(int).copy()
    expected[30:50, 40:60] = 200
    assert np.array_equal(kept, expected)
    assert finished(asked).shape == (80, 96, 3)


def test_a_crop_is_redrawn_at_the_tasks_size_and_pasted_back(model: Model) -> None:
    """The result has the input's size and equals it outside the mask."""
    mask = box_mask(160, 120, (100, 20, 124, 40))
    asked = task(
        TaskKind.INPAINT, image=gradient(160, 120), mask=mask, mask_options=MaskOptions(crop_padding=6)
    )
    part = region(asked)
    assert part.box == (94, 12, 130, 48)
    assert part.image.size == part.mask.size == (64, 64)
    result = pixels_of(finish(asked, decode(model, draw(model, asked)))[0])
    inside = pixels_of(mask)[..., 0] == 255
    assert result.shape == (120, 160, 3)
    assert np.array_equal(result[~inside], pixels_of(asked.image)[~inside])
    assert not np.array_equal(result[inside], pixels_of(asked.image)[inside])


def test_a_crop_redraws_more_detail_than_the_whole() -> None:
    """The masked part fills the redrawn picture but for the padding."""
    mask = box_mask(128, 128, (60, 60, 76, 76))
    cropped = region(
        task(TaskKind.INPAINT, image=gradient(128, 128), mask=mask, mask_options=MaskOptions(crop_padding=0))
    )
    assert np.asarray(cropped.mask).min() == 255
    whole = region(task(TaskKind.INPAINT, image=gradient(128, 128), mask=mask))
    assert (np.asarray(whole.mask) == 255).mean() < 0.03


def test_a_blurred_mask_widens_its_crop() -> None:
    """What the blur reaches is inside the crop, so the blend has no hard edge."""
    mask = box_mask(128, 128, (60, 60, 76, 76))
    boxes = [
        region(
            task(
                TaskKind.INPAINT,
                image=gradient(128, 128),
                mask=mask,
                mask_options=MaskOptions(blur=blur, crop_padding=0),
            )
        ).box
        for blur in (0.0, 3.0)
    ]
    assert boxes[1][0] < boxes[0][0]
    assert boxes[1][2] > boxes[0][2]


@given(
    size=st.tuples(st.integers(8, 90), st.integers(8, 90)),
    corner=st.tuples(st.integers(0, 89), st.integers(0, 89)),
    extent=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    padding=st.integers(0, 40),
    target=st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_crops_hold_the_mask_and_stay_inside(size, corner, extent, padding, target) -> None:
    """The box lies in the image, holds the padded mask, and keeps the proportions where it can."""
    width, height = size
    left, top = min(corner[0], width - 1), min(corner[1], height - 1)
    right, bottom = min(left + extent[0], width), min(top + extent[1], height)
    mask = Image.new("L", size)
    mask.paste(255, (left, top, right, bottom))
    box = crop_box(mask, padding, 64 * target[0], 64 * target[1])
    assert 0 <= box[0] <= max(left - padding, 0)
    assert 0 <= box[1] <= max(top - padding, 0)
    assert min(right + padding, width) <= box[2] <= width
    assert min(bottom + padding, height) <= box[3] <= height
    box_width, box_height = box[2] - box[0], box[3] - box[1]
    if box_width < width and box_height < height:
        assert abs(box_width * target[1] - box_height * target[0]) <= max(target)


def test_a_covering_latent_mask_marks_every_cell_it_touches() -> None:
    """A stroke one pixel wide, which nearest sampling misses, is the greatest value of its cells."""
    asked = task(TaskKind.INPAINT, mask=box_mask(box=(0, 3, 64, 4)))
    assert region(asked).latent_mask(8, 8).sum() == 0
    covering = region(replace(asked, mask_options=MaskOptions(cover=True))).latent_mask(8, 8)
    assert covering[0, 0, 0].tolist() == [1.0] * 8
    assert covering.sum() == 8


def test_a_soft_mask_takes_redrawn_pixels_where_it_is_grey() -> None:
    """Greys are no blend of two pictures any more; black is kept."""
    options = MaskOptions(soft=True)
    asked = task(TaskKind.INPAINT, mask=box_mask(level=128), image=grey(64, 64, 0), mask_options=options)
    result = finished(asked)
    assert (result[32, 32] > 180).all()
    assert result[0, 0].tolist() == [0, 0, 0]
