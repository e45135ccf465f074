"""Linear layers that oneDNN computes whole."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sdgrpc.machine.linear import OneDnnLinear, is_equal, use_onednn, use_torch

pytestmark = pytest.mark.skipif(
    not torch._C._has_mkldnn or not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
    reason="oneDNN multiplies bfloat16 on some processors only",
)


def test_this_torch_can() -> None:
    """Its operator is private: one that has another would be slower, and nothing else would say so."""
    assert is_equal(torch.bfloat16)
    assert not is_equal(torch.float32)


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


def test_columns_of_a_larger_sample_are_taken() -> None:
    """Of one that is not contiguous torch rounds the product before it adds the bias."""
    layer = nn.Linear(32, 48, dtype=torch.bfloat16).requires_grad_(False)
    sample = torch.randn(2, 10, 64).bfloat16()[..., 32:]
    with torch.inference_mode():
        expected = layer(sample)
        use_onednn(layer)
        torch.testing.assert_close(layer(sample), expected, rtol=2**-7, atol=2**-9)
        assert torch.equal(layer(sample), layer(sample.contiguous()))


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
