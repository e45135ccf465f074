"""Convolutions whose weights lie as oneDNN computes with them, so that no call has to lay them anew.

torch keeps a weight by rows, and on a CPU oneDNN brings it into a blocked order of its own for each call: at
SD1.5's deepest levels that takes longer than the arithmetic. A packed weight is in that order for good. It is
an opaque tensor of torch's `mkldnn` layout with the shape, dtype and bytes of the other, which it replaces.
Where torch takes oneDNN for the other too, as it does for all but few small samples of one row in float32,
what comes out is equal to the bit. `dense` gives the values back.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)

CONVOLVE = torch.ops.mkldnn._convolution_pointwise
"""Sample, packed weight, bias, padding, stride, dilation, groups, and no operation after it."""
ANY_SIDE = 32
"""Height and width of a sample to pack for; the order is the same for all that were tried, 4 to 128."""


class PackedConv2d(nn.Conv2d):
    """A convolution that takes packed weights, and others as ever."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch calls it
        """Convolve `(rows, channels, height, width)`; with a packed weight the answer is channels last."""
        if not self.weight.is_mkldnn:
            return super().forward(input)
        convolved: Tensor = CONVOLVE(
            input.contiguous(memory_format=torch.channels_last),
            self.weight,
            self.bias,
            self.padding,
            self.stride,
            self.dilation,
            self.groups,
            "none",
            [],
            "",
        )
        return convolved

    def packed(self, weight: Tensor) -> Tensor:
        """Return a dense weight of this convolution in oneDNN's order."""
        sample = [2, weight.shape[1] * self.groups, ANY_SIDE, ANY_SIDE]
        packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
            weight, self.padding, self.stride, self.dilation, self.groups, sample
        )
        return packed


def pack_convolutions(network: nn.Module) -> None:
    """Pack the weights of a network's convolutions, one after the other, where that is known to be the same.

    Nothing is done on other devices, for other dtypes, and where this torch or processor cannot.
    """
    for module in network.modules():
        if type(module) is nn.Conv2d and can_be_packed(module):
            packed = turned(module, PackedConv2d)
            _put(packed, packed.packed(packed.weight.detach()))


def packed_when_read(network: nn.Module, dtype: torch.dtype) -> dict[str, PackedConv2d]:
    """Make those convolutions of a network without weights take packed ones that can be packed in `dtype`.

    Returns them by their weights' names: `packed` of each gives the weight that `pack_convolutions` would.
    """
    if not _is_equal(dtype):
        return {}
    return {
        f"{path}.weight": turned(module, PackedConv2d)
        for path, module in network.named_modules()
        if type(module) is nn.Conv2d and _is_plain(module)
    }


def unpack_convolutions(network: nn.Module) -> None:
    """Undo `pack_convolutions`: the weights are what they were, to the bit, and lie channels last."""
    for _, module in packed_convolutions(network):
        weight = dense(module.weight.detach())
        _put(turned(module, nn.Conv2d), weight.contiguous(memory_format=torch.channels_last))


def is_channels_last(network: nn.Module) -> bool:
    """Whether a network's convolutions were laid out that way or packed, as those of large models are."""
    weights = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    return any(
        weight.is_mkldnn
        or (weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous())
        for weight in weights
    )


def drop_packed(network: nn.Module) -> None:
    """Free packed weights; only their shapes stay. The `mkldnn` layout knows no other device to go to."""
    for _, module in packed_convolutions(network):
        shape = torch.empty(module.weight.shape, dtype=module.weight.dtype, device="meta")
        _put(turned(module, nn.Conv2d), shape)


def packed_convolutions(network: nn.Module) -> Iterator[tuple[str, PackedConv2d]]:
    """Yield the convolutions that take packed weights, with their paths."""
    for path, module in network.named_modules():
        if isinstance(module, PackedConv2d):
            yield path, module


def dense(tensor: Tensor) -> Tensor:
    """Return a packed tensor's values by rows, in memory of its own; any other tensor itself."""
    return tensor.to_dense() if tensor.is_mkldnn else tensor


def can_be_packed(convolution: nn.Conv2d) -> bool:
    """Whether a convolution is of a kind, and its weight of a dtype on a device, that may be packed."""
    weight = convolution.weight
    on_cpu = weight.device.type == "cpu" and not weight.is_mkldnn
    return _is_plain(convolution) and on_cpu and _is_equal(weight.dtype)


def _is_plain(convolution: nn.Conv2d) -> bool:
    plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
    # Of one pixel it is a product of matrices, whose best order depends on the sample's size.
    return plain and math.prod(convolution.kernel_size) > 1


@lru_cache
def _is_equal(dtype: torch.dtype) -> bool:
    """Whether this machine packs weights of a dtype, and a convolution answers with the same bits then."""
    if platform.machine().lower() not in ("x86_64", "amd64") or not torch._C._has_mkldnn:
        return False
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    if dtype == torch.bfloat16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    with torch.inference_mode(False), torch.no_grad():
        convolution = PackedConv2d(32, 64, 3, padding=1, dtype=dtype).to(memory_format=torch.channels_last)
        sample = torch.linspace(-1, 1, 2 * 32 * 64).to(dtype).view(2, 8, 8, 32).permute(0, 3, 1, 2)
        expected = F.conv2d(sample, convolution.weight, convolution.bias, padding=1)
        try:
            _put(convolution, convolution.packed(convolution.weight.detach()))
            return torch.equal(convolution(sample), expected)
        except (RuntimeError, AttributeError):  # private operators: another torch may have others
            return False


def turned(module: nn.Module, kind: type[Module]) -> Module:
    """Make a module one of another class, with the same state; its owner and its hooks stay what they are."""
    object.__setattr__(module, "__class__", kind)
    assert isinstance(module, kind)  # noqa: S101 - for mypy
    return module


def _put(convolution: nn.Conv2d, weight: Tensor) -> None:
    convolution.weight = nn.Parameter(weight, requires_grad=False)
