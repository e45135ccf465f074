"""Small models of which LoRA sets are fused, or multiplied from resident factors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from sdgrpc.domain import LoraRef
from sdgrpc.lora.fusing.cache import FusedSets, Lease, OverlaySwitch
from sdgrpc.lora.resident.files import ResidentFiles
from sdgrpc.lora.resident.switching import LiveSwitch
from sdgrpc.lora.store.contents import FoundLora
from tests.support.fused import MEBIBYTE
from tests.support.loras import small_components

Members = Sequence[tuple[FoundLora, LoraRef]]


def weights_of(components: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """What the networks compute with now."""
    return {
        f"{component}.{name}": weight.detach().clone()
        for component, network in components.items()
        for name, weight in network.named_parameters()
    }


class Fused:
    """Sets fused as a whole and put in place."""

    def __init__(self, components: Mapping[str, nn.Module] | None = None) -> None:
        self.components = components or small_components()
        self.sets = FusedSets(self.components, base="embedded", capacity_bytes=8 * MEBIBYTE)
        self._switches = {name: OverlaySwitch(network) for name, network in self.components.items()}

    def use(self, members: Members) -> dict[str, Tensor]:
        """Switch to a set and return the weights."""
        with self.sets.acquire(members) as lease:
            for name, switch in self._switches.items():
                switch.use(lease.overlay.tensors.get(name, {}))
        return weights_of(self.components)


class Multiplied:
    """Sets multiplied from resident factors into live weights."""

    def __init__(
        self, components: Mapping[str, nn.Module] | None = None, capacity_bytes: int = MEBIBYTE
    ) -> None:
        self.components = components or small_components()
        self.files = ResidentFiles(self.components, capacity_bytes=capacity_bytes)
        self.sets = FusedSets(
            self.components, base="embedded", capacity_bytes=8 * MEBIBYTE, resident=self.files
        )
        self.switches = {name: LiveSwitch(self.files.live[name], name) for name in self.components}

    def acquire(self, members: Members) -> Lease:
        """Return a set."""
        return self.sets.acquire(members)

    def use(self, members: Members) -> dict[str, Tensor]:
        """Switch to a set and return the weights."""
        with self.acquire(members) as lease:
            for switch in self.switches.values():
                switch.use(lease.overlay)
        return weights_of(self.components)


def channels_last(components: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    """Lay the weights of convolutions out as large models have them."""
    for network in components.values():
        for module in network.modules():
            for leaf, weight in module.named_parameters(recurse=False):
                if weight.ndim == 4:
                    laid = weight.detach().contiguous(memory_format=torch.channels_last)
                    module.register_parameter(leaf, nn.Parameter(laid, requires_grad=False))
    return components
