"""Linear layers that oneDNN computes whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdgrpc.machine.onednn.linear import (
    OneDnnLinear,
    OnePixelConv2d,
    is_equal,
    multiplied,
    use_onednn,
    use_torch,
)

supported = pytest.mark.skipif(
    not torch._C._has_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN multiplies bfloat16 on some processors only",
)
used = pytest.mark.skipif(not is_equal(torch.bfloat16), reason="its bits are torch's on some processors only")


@supported
def test_this_torch_can() -> None:
    """Its operator is private: one that has another would be slower, and nothing else would say so."""
    torch.manual_seed(0)
    sample, weight, bias = torch.randn(40, 96), torch.randn(160, 96), torch.randn(160)
    exact = nn.functional.linear(*(one.bfloat16().double() for one in (sample, weight, bias)))
    found = multiplied(sample.bfloat16(), weight.bfloat16(), bias.bfloat16())
    torch.testing.assert_close(found.double(), exact, rtol=2**-7, atol=1e-4)
    assert not is_equal(torch.float32)


@used
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 64), (2, 16, 64), (2, 77, 64), (3, 1000, 64)])
def test_answers_are_equal_to_the_bit(shape: tuple[int, ...], bias: bool) -> None:
    """Whatever the sample's rows are, with its weight and with one that was put in its place."""
    torch.manual_seed(0)
    layer = nn.Linear(64, 96, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    sample, other = torch.randn(shape).bfloat16(), nn.Parameter(torch.randn(96, 64).bfloat16(), False)
    before = layer.weight
    with torch.inference_mode():
        expected = []
        for weight in (before, other):
            layer.weight = weight
            expected.append(layer(sample))
        use_onednn(layer)
        assert type(layer) is OneDnnLinear
        assert torch.equal(layer(sample), expected[1])
        layer.weight = before
        assert torch.equal(layer(sample), expected[0])
    assert not torch.equal(*expected)


@used
def test_columns_of_a_larger_sample_are_taken() -> None:
    """Of one that is not contiguous torch rounds the product before it adds the bias."""
    layer = nn.Linear(32, 48, dtype=torch.bfloat16).requires_grad_(False)
    sample = torch.randn(2, 10, 64).bfloat16()[..., 32:]
    with torch.inference_mode():
        expected = layer(sample)
        use_onednn(layer)
        torch.testing.assert_close(layer(sample), expected, rtol=2**-7, atol=2**-9)
        assert torch.equal(layer(sample), layer(sample.contiguous()))


@used
def test_other_dtypes_stay_with_torch() -> None:
    """Layers in float32 keep their class, and one that gets such a weight multiplies by torch."""
    layer, made = nn.Linear(8, 8).requires_grad_(False), nn.Linear(8, 8, dtype=torch.bfloat16)
    network = nn.Sequential(layer, made.requires_grad_(False))
    use_onednn(network)
    assert type(layer) is nn.Linear
    assert type(made) is OneDnnLinear
    made.weight, made.bias = layer.weight, layer.bias
    sample = torch.randn(3, 8)
    assert torch.equal(made(sample), layer(sample))
    use_torch(network)
    assert type(made) is nn.Linear


@used
@pytest.mark.parametrize("bias", [True, False])
def test_one_pixel_is_a_linear_layer(bias: bool) -> None:
    """It answers channels last, as near to the exact sums as torch; another weight can take its place."""
    torch.manual_seed(0)
    made = nn.Conv2d(64, 96, 1, bias=bias, dtype=torch.bfloat16).requires_grad_(False)
    other = torch.randn(96, 64, 1, 1).bfloat16().to(memory_format=torch.channels_last)
    sample = torch.randn(2, 64, 6, 4).bfloat16().contiguous(memory_format=torch.channels_last)
    use_onednn(made)
    assert type(made) is OnePixelConv2d
    for weight in (made.weight, nn.Parameter(other, requires_grad=False)):
        made.weight = weight
        exact = nn.functional.conv2d(
            sample.double(), weight.double(), made.bias.double() if made.bias is not None else None
        )
        with torch.inference_mode():
            answer = made(sample)
        torch.testing.assert_close(answer.double(), exact, rtol=2**-8, atol=1e-5)
        assert answer.is_contiguous(memory_format=torch.channels_last)


@used
def test_samples_by_rows_are_convolved() -> None:
    """And convolutions of one pixel that skip, pad, or are in groups stay torch's, as all do afterwards."""
    made = nn.Conv2d(8, 4, 1, dtype=torch.bfloat16).requires_grad_(False)
    sample = torch.randn(1, 8, 3, 3).bfloat16()
    with torch.inference_mode():
        expected = made(sample)
        use_onednn(made)
        assert torch.equal(made(sample), expected)
        use_torch(made)
    assert type(made) is nn.Conv2d
    settings = ({"stride": 2}, {"padding": 1}, {"groups": 4})
    others = [nn.Conv2d(8, 4, 1, **one, dtype=torch.bfloat16) for one in settings]
    for other in (*others, nn.Conv2d(8, 4, 3, dtype=torch.bfloat16), nn.Conv2d(8, 4, 1)):
        use_onednn(other)
        assert type(other) is nn.Conv2d
