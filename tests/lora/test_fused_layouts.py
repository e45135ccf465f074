"""Sets of weights whose channels come last in memory."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from sdgrpc.lora.fusing.cache import FusedSets, Lease
from tests.support.loras import (
    CONVOLUTION,
    every_algorithm,
    kohya,
    lora_file,
    ref,
    shape_of,
    small_components,
    weight_of,
)


def fused(lease: Lease) -> Tensor:
    """The one weight that a set changed."""
    (tensors,) = lease.overlay.tensors.values()
    (weight,) = tensors.values()
    return weight


def channels_last(components: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """The components, their convolutions laid out anew."""
    for module in components.values():
        for name, weight in list(module.named_parameters()):
            if weight.ndim == 4:
                laid = nn.Parameter(weight.detach().contiguous(memory_format=torch.channels_last))
                module.get_submodule(name.rpartition(".")[0])._parameters["weight"] = laid
    return dict(components)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("algorithm", list(every_algorithm(shape_of(CONVOLUTION))))
def test_every_algorithm_changes_the_same_numbers(algorithm: str, dtype: torch.dtype) -> None:
    """In the base's own layout, in fresh memory and in that of an evicted set."""
    tensors = every_algorithm(shape_of(CONVOLUTION))[algorithm]
    file = lora_file({f"{kohya(CONVOLUTION)}{ending}": tensor for ending, tensor in tensors.items()})
    plain, laid = small_components(dtype), channels_last(small_components(dtype))
    base = weight_of(laid, CONVOLUTION)
    assert not base.is_contiguous()
    expected = fused(
        FusedSets(plain, base="embedded", capacity_bytes=1 << 20).acquire([(file, ref(0.7))])
    ).double()
    cache = FusedSets(laid, base="embedded", capacity_bytes=base.nbytes)
    for strength in (0.3, 0.7, 0.4, 0.7):  # each evicts the one before
        with cache.acquire([(file, ref(strength))]) as lease:
            assert fused(lease).stride() == base.stride()
            if strength == 0.7:  # sums may be added in another order: a last place at most
                unit = torch.finfo(dtype).eps * torch.maximum(expected.abs(), base.double().abs())
                assert ((fused(lease).double() - expected).abs() <= unit).all()
    assert cache.stats().fuse_count == 4
