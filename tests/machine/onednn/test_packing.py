"""Convolutions with packed weights."""

from __future__ import annotations

import platform

import pytest
import torch
from torch import nn

from sdgrpc.domain import Tiling
from sdgrpc.machine.onednn import packing
from sdgrpc.machine.onednn.packing import (
    PackedConv2d,
    can_be_packed,
    dense,
    drop_packed,
    is_channels_last,
    pack_convolutions,
    packed_convolutions,
    packed_when_read,
    unpack_convolutions,
)
from sdgrpc.machine.seamless import seamless

KINDS = {
    "three by three": {"kernel_size": 3, "padding": 1},
    "two by two": {"kernel_size": 2},
    "every second": {"kernel_size": 3, "padding": 1, "stride": 2},
    "without bias": {"kernel_size": 3, "padding": 1, "bias": False},
    "few channels": {"kernel_size": 3, "padding": 1, "in_channels": 4},
    "dilated": {"kernel_size": 3, "padding": 2, "dilation": 2},
    "in groups": {"kernel_size": 3, "padding": 1, "groups": 4},
}
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if packing._is_equal(dtype)]

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not torch._C._has_mkldnn, reason="packing is for oneDNN on x86"
)


def test_this_torch_packs() -> None:
    """Its operators are private: one that has others would be slower, and nothing else would say so."""
    assert torch.float32 in DTYPES
    assert (torch.bfloat16 in DTYPES) == torch.ops.mkldnn._is_mkldnn_bf16_supported()


def convolution(kind: str, dtype: torch.dtype) -> nn.Conv2d:
    torch.manual_seed(0)
    options = {"in_channels": 32, "out_channels": 64} | KINDS[kind]
    made = nn.Conv2d(**options, dtype=dtype).requires_grad_(False)
    return made.to(memory_format=torch.channels_last)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_answers_are_equal_to_the_bit(kind: str, dtype: torch.dtype) -> None:
    """At sizes and with rows that nothing was packed for, channels last whatever the sample is."""
    made = convolution(kind, dtype)
    samples = [
        torch.randn(rows, made.in_channels, side, side + 3).to(dtype).to(memory_format=layout)
        for rows, side in ((2, 32), (2, 7), (16, 12))
        for layout in (torch.channels_last, torch.contiguous_format)
    ]
    with torch.inference_mode():
        expected = [made(sample) for sample in samples]
        pack_convolutions(made)
        assert made.weight.is_mkldnn
        for sample, wanted in zip(samples, expected, strict=True):
            answer = made(sample)
            assert torch.equal(answer, wanted)
            assert answer.stride() == wanted.stride()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_weights_packed_by_rows_are_the_same(kind: str, dtype: torch.dtype) -> None:
    """A weight that was just read is packed from its rows, to the bit as one whose channels are last."""
    made, sample = (
        convolution(kind, dtype),
        torch.randn(2, 32, 9, 8).to(dtype)[:, : convolution(kind, dtype).in_channels],
    )
    weight, network = made.weight.detach().contiguous(), nn.Sequential(convolution(kind, dtype).to("meta"))
    (name, taker), *others = packed_when_read(network, dtype).items()
    assert (name, others, taker is network[0]) == ("0.weight", [], True)
    packed = taker.packed(weight)
    assert torch.equal(dense(packed), weight)
    pack_convolutions(made)
    expected = made(sample)
    made.weight = nn.Parameter(packed, requires_grad=False)
    assert torch.equal(made(sample), expected)


def test_none_is_packed_when_read_that_would_not_be_later() -> None:
    """Single pixels, other paddings, and any in a dtype that this machine does not pack."""
    kinds = {"padding_mode": "reflect"}, {"padding": "same"}, {"kernel_size": 1}
    network = nn.Sequential(
        *(nn.Conv2d(4, 4, **({"kernel_size": 3} | kind)) for kind in kinds), nn.Linear(4, 4)
    )
    assert packed_when_read(network, torch.float32) == {}
    assert packed_when_read(nn.Conv2d(4, 4, 3), torch.float64) == {}
    assert {type(one) for one in network} == {nn.Conv2d, nn.Linear}


def test_the_values_come_back() -> None:
    """From one weight, and of a whole network, whose convolutions are torch's own again."""
    network = nn.Sequential(convolution("three by three", DTYPES[0]), nn.GroupNorm(4, 64))
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    pack_convolutions(network)
    assert [path for path, _ in packed_convolutions(network)] == ["0"]
    assert torch.equal(dense(network[0].weight), before["0.weight"])
    unpack_convolutions(network)
    assert type(network[0]) is nn.Conv2d
    assert all(torch.equal(weight, before[name]) for name, weight in network.state_dict().items())
    assert dense(before["0.weight"]) is before["0.weight"]


def test_another_weight_can_take_its_place() -> None:
    """A fused one is packed by its convolution; a dense one is convolved as ever."""
    made = convolution("every second", DTYPES[0])
    pack_convolutions(made)
    assert isinstance(made, PackedConv2d)
    other, sample = torch.randn(64, 32, 3, 3).to(DTYPES[0]), torch.randn(2, 32, 9, 9).to(DTYPES[0])
    made.weight = nn.Parameter(made.packed(other), requires_grad=False)
    packed = made(sample)
    made.weight = nn.Parameter(other, requires_grad=False)
    torch.testing.assert_close(made(sample), packed, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tiling", [Tiling(True, True), Tiling(horizontal=True), Tiling(vertical=True)])
def test_it_wraps_around_as_others_do(tiling: Tiling) -> None:
    """Seamless pictures are drawn with packed weights too."""
    made, sample = convolution("three by three", torch.float32), torch.randn(2, 32, 8, 6)
    with torch.inference_mode(), seamless(tiling):
        expected = made(sample)
        pack_convolutions(made)
        assert torch.equal(made(sample), expected)


def test_what_cannot_be_packed_is_left_alone() -> None:
    """Other paddings, dtypes and devices, single pixels, and what is packed already."""
    for left in (
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, dtype=torch.float64),
        nn.Conv2d(4, 4, 1),
        nn.Conv2d(4, 4, 3, device="meta"),
    ):
        assert not can_be_packed(left)
        pack_convolutions(left)
        assert type(left) is nn.Conv2d
    made = convolution("two by two", DTYPES[0])
    pack_convolutions(made)
    assert not can_be_packed(made)


def test_large_networks_are_known_by_their_layout() -> None:
    """Those of small models stay by rows; packed ones are large models'."""
    packed = convolution("three by three", DTYPES[0])
    pack_convolutions(packed)
    assert is_channels_last(nn.Sequential(packed))
    assert is_channels_last(nn.Sequential(convolution("three by three", torch.float32)))
    assert not is_channels_last(nn.Sequential(nn.Conv2d(4, 4, 3), nn.Linear(2, 2)))
    assert not is_channels_last(nn.Linear(2, 2))


def test_a_dropped_weight_leaves_its_shape() -> None:
    """The network can go to the meta device then."""
    made = convolution("three by three", DTYPES[0])
    pack_convolutions(made)
    drop_packed(made)
    assert made.to("meta").weight.shape == (64, 32, 3, 3)
    assert type(made) is nn.Conv2d
