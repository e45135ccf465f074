"""Linear layers that oneDNN computes whole, its bias included, and convolutions of one pixel as such.

torch takes oneDNN for products of bfloat16 matrices, but lays the bias into the answer's memory first, once
for each token, and has the product added. Given the bias, oneDNN adds it while the sums are in registers: of
a contiguous sample the answer is equal to the bit. Weights stay as they are: a LoRA's can take their place.

A convolution of one pixel is a linear layer of channels that lie last. As such it takes two thirds of the
time where channels are many. Its sums are rounded as ever, but added up in another order.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdgrpc.machine.onednn.packing import turned

MULTIPLY = torch.ops.mkldnn._linear_pointwise
"""Sample, weight, bias, and no operation after it."""


class OneDnnLinear(nn.Linear):
    """A linear layer of bfloat16 on the CPU; in any other dtype it is torch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch calls it
        """Return `(..., out)` of `(..., in)`."""
        return multiplied(input, self.weight, self.bias)


class OnePixelConv2d(nn.Conv2d):
    """A convolution of one pixel in bfloat16 on the CPU; of samples laid out otherwise it is torch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch calls it
        """Return `(rows, out, height, width)` of `(rows, in, height, width)`, channels last."""
        if input.dtype != torch.bfloat16 or not input.is_contiguous(memory_format=torch.channels_last):
            return super().forward(input)
        pixels = multiplied(input.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return pixels.permute(0, 3, 1, 2)

    @staticmethod
    def fits(convolution: nn.Conv2d) -> bool:
        """Whether a convolution is such a one."""
        settings = (convolution.kernel_size, convolution.stride, convolution.padding, convolution.groups)
        return settings == ((1, 1), (1, 1), (0, 0), 1)


def multiplied(sample: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `sample @ weight.T + bias`, with oneDNN for all of it where the sample is bfloat16."""
    if sample.dtype != torch.bfloat16 or weight.dtype != torch.bfloat16:
        return F.linear(sample, weight, bias)
    product: Tensor = MULTIPLY(sample, weight, bias, "none", [], "")
    return product


def use_onednn(network: nn.Module) -> None:
    """Have oneDNN compute a network's linear layers in bfloat16 on the CPU, where that is equal."""
    for module in network.modules():
        if type(module) is nn.Linear and _can_be_computed(module.weight):
            turned(module, OneDnnLinear)
        elif type(module) is nn.Conv2d and OnePixelConv2d.fits(module) and _can_be_computed(module.weight):
            turned(module, OnePixelConv2d)


def use_torch(network: nn.Module) -> None:
    """Undo `use_onednn`."""
    for module in network.modules():
        if isinstance(module, OneDnnLinear):
            turned(module, nn.Linear)
        elif isinstance(module, OnePixelConv2d):
            turned(module, nn.Conv2d)


def _can_be_computed(weight: Tensor) -> bool:
    return weight.device.type == "cpu" and is_equal(weight.dtype)


@lru_cache
def multiplies_float32() -> bool:
    """Whether oneDNN multiplies float32 matrices with AVX-512 here; with AVX2 MKL's way is the faster one."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch._C._has_mkldnn:
        return False
    with torch.inference_mode(False), torch.no_grad():
        sample, weight = torch.linspace(-1, 1, 7 * 5).view(7, 5), torch.linspace(-2, 1, 3 * 5).view(3, 5)
        try:
            return torch.allclose(MULTIPLY(sample, weight, None, "none", [], ""), sample @ weight.T)
        except (RuntimeError, AttributeError):  # a private operator: another torch may have another
            return False


@lru_cache
def is_equal(dtype: torch.dtype) -> bool:
    """Whether this machine multiplies a dtype by oneDNN, and answers with torch's bits then."""
    if dtype != torch.bfloat16 or not torch._C._has_mkldnn:
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    with torch.inference_mode(False), torch.no_grad():
        values = torch.linspace(-1, 1, 160 * 96).to(dtype)
        sample, weight, bias = values[: 80 * 96].view(2, 40, 96), values.view(160, 96), values[:160] + 1
        try:
            return torch.equal(multiplied(sample, weight, bias), F.linear(sample, weight, bias))
        except (RuntimeError, AttributeError):  # a private operator: another torch may have another
            return False
