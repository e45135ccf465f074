"""Convolutions that wrap around."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sdgrpc.domain import Tiling
from sdgrpc.machine.seamless import seamless

BOTH = Tiling(True, True)


@pytest.mark.parametrize("stride", [1, 2])
def test_torch_s_own_circular_padding_gives_the_same(stride: int) -> None:
    """Of both axes, which is all that modules have."""
    plain = nn.Conv2d(3, 5, 3, padding=1, stride=stride)
    circular = nn.Conv2d(3, 5, 3, padding=1, stride=stride, padding_mode="circular")
    circular.load_state_dict(plain.state_dict())
    sample = torch.randn(2, 3, 8, 6)
    with seamless(BOTH):
        wrapped = plain(sample)
    assert torch.equal(wrapped, circular(sample))
    assert not torch.equal(plain(sample), wrapped)


@pytest.mark.parametrize(("tiling", "axis"), [(Tiling(horizontal=True), 3), (Tiling(vertical=True), 2)])
def test_one_axis_moves_with_the_picture(tiling: Tiling, axis: int) -> None:
    """Along it a shifted picture gives a shifted answer; along the other it does not."""
    convolution, sample = nn.Conv2d(2, 2, 3, padding=1), torch.randn(1, 2, 6, 6)
    with seamless(tiling):
        for along in (2, 3):
            shifted = convolution(sample.roll(2, along)).roll(-2, along)
            assert torch.allclose(shifted, convolution(sample), atol=1e-6) == (along == axis)


def test_paddings_before_a_stride_wrap_too() -> None:
    """The VAE pads to the right and below by hand."""
    sample = torch.arange(4.0).view(1, 1, 2, 2)
    with seamless(BOTH):
        padded = F.pad(sample, (0, 1, 0, 1), mode="constant", value=0)
    assert padded[0, 0].tolist() == [[0.0, 1.0, 0.0], [2.0, 3.0, 2.0], [0.0, 1.0, 0.0]]


def test_other_threads_convolve_as_ever() -> None:
    """One model is used by several at a time."""
    convolution, sample, found = nn.Conv2d(1, 1, 3, padding=1), torch.randn(1, 1, 4, 4), []
    expected = convolution(sample)
    with seamless(BOTH):
        thread = threading.Thread(target=lambda: found.append(convolution(sample)))
        thread.start()
        thread.join()
    assert torch.equal(found[0], expected)
    assert torch.equal(convolution(sample), expected)
