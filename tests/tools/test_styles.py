"""The styles change what their rulers measure."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from tools.tiny_model.drawing import Spec, draw
from tools.tiny_model.styles import behind, darkness, ink, night, outline, striped, stripes

PAIRS = [(stripes, striped), (night, darkness), (outline, ink)]


@pytest.mark.parametrize(("style", "ruler"), PAIRS)
def test_each_ruler_sees_its_style(
    style: Callable[[np.ndarray], np.ndarray], ruler: Callable[[np.ndarray], float]
) -> None:
    """On a coloured background a style is measured well above the plain picture."""
    picture = draw(Spec("star", "orange", "green"), np.random.default_rng(0))
    changed = style(picture)
    assert (changed.shape, changed.dtype) == (picture.shape, np.uint8)
    assert ruler(changed) > ruler(picture) + 0.15


def test_only_the_background_is_behind() -> None:
    """The middle of a shape stays what it is, the border does not."""
    picture = draw(Spec("circle", "red", "blue"), np.random.default_rng(0))
    assert behind(picture)[64, 64] == 0
    assert behind(picture)[2, 2] == 1
    for style in (stripes, night):
        assert np.array_equal(style(picture)[56:72, 56:72], picture[56:72, 56:72])
