"""A model in memory with its fused LoRA sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.lora.fusing.cache import FusedSets, Lease, OverlaySwitch


@dataclass(slots=True)
class ServedModel:
    """A model with its fused sets and, per component, the switch that puts a set's weights in place."""

    model: Model
    sets: FusedSets
    switches: Mapping[str, OverlaySwitch]

    @classmethod
    def of(cls, model: Model, *, lora_cache_bytes: int) -> ServedModel:
        """Wrap a loaded model."""
        components = model.lora_components()
        sets = FusedSets(components, base=model.info.base, capacity_bytes=lora_cache_bytes)
        return cls(model, sets, {name: OverlaySwitch(module) for name, module in components.items()})

    def use(self, component: str, lease: Lease) -> None:
        """Point `component` at the weights of the lease's set."""
        self.switches[component].use(lease.overlay.tensors.get(component, {}))

    def restore(self) -> None:
        """Give the model its pristine weights back, once no thread uses it."""
        for switch in self.switches.values():
            switch.use({})

    def unload(self) -> None:
        """Free the weights, but for the VAE's, which go with the last preview that needs them."""
        self.restore()
        for network in self.model.lora_components().values():
            network.to("meta")
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def weight_bytes(self) -> int:
        """What the pristine weights hold."""
        networks = (self.model.vae, *self.model.lora_components().values())
        return sum(network.get_memory_footprint() for network in networks)
