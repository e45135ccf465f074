"""What tensors say about their weight."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.lora.algorithms.tensors import BadTensors, Size, expect, scale

SHAPES = [
    (Size(), (5,), True),
    (Size(rows=2), (2, 7), True),
    (Size(rows=2), (3, 7), False),
    (Size(columns=6), (2, 6), True),
    (Size(columns=6), (2, 3, 2, 1), True),
    (Size(columns=6), (2, 5), False),
    (Size(step=3), (2, 6), True),
    (Size(step=3), (2, 7), False),
    (Size(row_counts=(2, 4)), (4, 7), True),
    (Size(row_counts=(2, 4)), (3, 7), False),
    (Size(least_rows=3), (3, 1), True),
    (Size(least_rows=3), (2, 9), False),
    (Size(least_columns=3), (1, 3), True),
    (Size(least_columns=3), (9, 2), False),
    (Size(least_numbers=20), (4, 5), True),
    (Size(least_numbers=20), (4, 6), True),
    (Size(least_numbers=20), (3, 6), False),
    (Size(most_columns=6), (2, 6), True),
    (Size(most_columns=6), (2, 5), True),
    (Size(most_columns=6), (2, 7), False),
    (Size(inputs=1000), (2, 1000), True),
    (Size(inputs=3), (2, 3, 5, 5), True),
    (Size(inputs=3), (2, 4), False),
    (Size(inputs=3), (2, 2), False),
    (Size(inputs=1), (5,), True),
    (Size(kernel=(3, 3)), (2, 4, 3, 3), True),
    (Size(kernel=(3, 3)), (2, 36), True),
    (Size(kernel=(3, 3)), (2, 4, 1, 1), False),
    (Size(kernel=(3, 3)), (2, 4, 5, 5), False),
]


@pytest.mark.parametrize(("size", "shape", "fits"), SHAPES)
def test_a_size_fits_up_to_its_bounds(size: Size, shape: tuple[int, ...], fits: bool) -> None:
    """Each thing that tensors tell decides by itself, exactly at its edge."""
    assert size.fits(shape) is fits


def test_a_size_is_said_in_words() -> None:
    """What is not told is any."""
    assert [str(one) for one in (Size(), Size(2, 6), Size(2, inputs=3))] == ["any x any", "2 x 6", "2 x 3"]


@pytest.mark.parametrize("shape", [(2,), (2, 0)])
def test_a_tensor_of_another_shape_is_blamed(shape: tuple[int, ...]) -> None:
    """By its role; an empty one too."""
    with pytest.raises(BadTensors, match="shape") as raised:
        expect({"up": torch.zeros(shape)}, "up", 2, 4)
    assert raised.value.role == "up"
    assert expect({"up": torch.zeros(2, 1)}, "up", 2, 4).shape == (2, 1)


def test_alpha_is_over_the_rank() -> None:
    """Without one it is 1, an alpha of 0 stays 0, and a scale is taken as it is."""
    assert scale({}, 4) == 1.0
    assert scale({"alpha": torch.tensor(2.0)}, 4) == 0.5
    assert scale({"alpha": torch.tensor(0)}, 4) == 0.0
    assert scale({"alpha": torch.tensor(2.0), "scale": torch.tensor(3.0)}, 4) == 3.0
