"""Linear layers that oneDNN computes whole, its bias included.

torch takes oneDNN for products of bfloat16 matrices, but lays the bias into the answer's memory first, once
for each token, and has the product added. Given the bias, oneDNN adds it while the sums are in registers: of
a contiguous sample the answer is equal to the bit. Weights stay as they are: a LoRA's can take their place.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sdgrpc.machine.packing import turned

MULTIPLY = torch.ops.mkldnn._linear_pointwise
"""Sample, weight, bias, and no operation after it."""


class OneDnnLinear(nn.Linear):
    """A linear layer of bfloat16 on the CPU; in any other dtype it is torch's."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - as torch calls it
        """Return `(..., out)` of `(..., in)`."""
        return multiplied(input, self.weight, self.bias)


def multiplied(sample: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return `sample @ weight.T + bias`, with oneDNN for all of it where the sample is bfloat16."""
    if sample.dtype != torch.bfloat16 or weight.dtype != torch.bfloat16:
        return F.linear(sample, weight, bias)
    product: Tensor = MULTIPLY(sample, weight, bias, "none", [], "")
    return product


def use_onednn(network: nn.Module) -> None:
    """Have oneDNN compute a network's linear layers in bfloat16 on the CPU, where that is equal."""
    for module in network.modules():
        if type(module) is nn.Linear and module.weight.device.type == "cpu" and is_equal(module.weight.dtype):
            turned(module, OneDnnLinear)


def use_torch(network: nn.Module) -> None:
    """Undo `use_onednn`."""
    for module in network.modules():
        if isinstance(module, OneDnnLinear):
            turned(module, nn.Linear)


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
