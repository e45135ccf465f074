"""Weights as matrices in the order of their memory."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.machine.matrices import as_matrix, has_channels_last, in_order_of

SHAPES = [(6, 5), (6, 5, 1, 1), (6, 5, 3, 3), (6, 1, 3, 3), (6,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_matrix_is_a_view_in_memory_order(shape: tuple[int, ...], channels_last: bool) -> None:
    """What is written into it stands in the weight; the numbers follow one another."""
    weight = torch.randn(shape)
    if channels_last and weight.ndim == 4:
        weight = weight.contiguous(memory_format=torch.channels_last)
    matrix = as_matrix(weight)
    assert matrix.shape == (shape[0], weight[0].numel())
    assert matrix.is_contiguous()
    assert matrix.data_ptr() == weight.data_ptr()
    assert has_channels_last(weight) is (channels_last and shape == (6, 5, 3, 3))


@pytest.mark.parametrize("shape", SHAPES)
def test_changes_are_brought_into_that_order(shape: tuple[int, ...]) -> None:
    """A change in the order of the shape, added in the weight's own order, is added to the right numbers."""
    change = torch.randn(shape)
    laid = torch.zeros(shape)
    if laid.ndim == 4:
        laid = laid.contiguous(memory_format=torch.channels_last)
    for weight in (torch.zeros(shape), laid):
        as_matrix(weight).add_(in_order_of(weight, change.reshape(shape[0], -1)))
        assert torch.equal(weight, change)
