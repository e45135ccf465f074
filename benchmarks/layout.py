"""How the weights of a network's convolutions lie in memory."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

Network = TypeVar("Network", bound=nn.Module)


def lay_out(network: Network, memory_format: torch.memory_format) -> Network:
    """Bring the weights of a network's convolutions into a memory format.

    The values stay what they are; a convolution answers in the format of its weight.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            weight = module.weight
            if not weight.is_contiguous(memory_format=memory_format):
                laid = weight.detach().contiguous(memory_format=memory_format)
                module.weight = nn.Parameter(laid, requires_grad=weight.requires_grad)
    return network
