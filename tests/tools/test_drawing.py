"""The drawn pictures show what their specification says."""

import numpy as np
import pytest

from tools.tiny_model.captions import training_specs
from tools.tiny_model.classifier import background_of, border, fill_of
from tools.tiny_model.drawing import (
    FRAME_PX,
    SHAPES,
    SIDE,
    Spec,
    contact_sheet,
    draw,
    mask,
    outline,
    postcard,
    sepia,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_colours_of_every_trained_combination_are_read_back(rng):
    for spec in training_specs()[::7]:
        picture = draw(spec, rng)
        assert (fill_of(picture), background_of(picture)) == (spec.fill, spec.background)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_larger_size_covers_more(shape):
    areas = [mask(outline(shape), radius).sum() for radius in (26, 38, 50)]
    assert areas == sorted(areas)
    assert areas[0] > 0.05 * SIDE * SIDE


def test_the_same_generator_state_draws_the_same_picture():
    spec = Spec("star", "red", "blue")
    first, second = (draw(spec, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(first, second)


def test_an_unknown_shape_is_refused():
    with pytest.raises(ValueError, match="no such shape: blob"):
        outline("blob")


def test_the_postcard_has_a_white_border_and_keeps_the_middle(rng):
    picture = draw(Spec("heart", "red", "black"), rng)
    framed = postcard(picture)
    assert (border(framed) == 252).all()
    inner = slice(FRAME_PX + 2, SIDE - FRAME_PX - 2)
    assert np.array_equal(framed[inner, inner], picture[inner, inner])


def test_sepia_orders_the_channels_from_red_to_blue(rng):
    print_ = sepia(draw(Spec("circle", "blue", "green"), rng)).astype(int)
    assert (print_[..., 0] >= print_[..., 1]).all()
    assert (print_[..., 1] > print_[..., 2]).all()


def test_a_contact_sheet_has_a_cell_per_picture(rng):
    picture = draw(Spec("square", "pink", "black"), rng)
    assert contact_sheet([picture] * 5, 3).size == (3 * (SIDE + 4), 2 * (SIDE + 4))
