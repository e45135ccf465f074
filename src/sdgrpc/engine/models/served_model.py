"""A model in memory with its fused LoRA sets, and how its networks are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from sdgrpc.diffusion.compiling.calls import example_inputs
from sdgrpc.diffusion.compiling.direct import make_direct, make_usual
from sdgrpc.diffusion.compiling.evaluator import Evaluator
from sdgrpc.diffusion.model import Model
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.errors import ModelError
from sdgrpc.lora.fusing.cache import FusedSets, Lease, OverlaySwitch
from sdgrpc.lora.fusing.overlay import Overlay
from sdgrpc.lora.resident.files import ResidentFiles
from sdgrpc.lora.resident.switching import LiveSwitch
from sdgrpc.machine.onednn.linear import use_onednn, use_torch
from sdgrpc.machine.onednn.packing import (
    drop_packed,
    is_channels_last,
    pack_convolutions,
    unpack_convolutions,
)
from sdgrpc.machine.streams import finish_device

BASE = Overlay({})
"""Changes nothing."""


@dataclass(slots=True)
class ServedModel:
    """A model with its fused sets and, per component, the switch that puts a set's weights in place.

    `resident` are the LoRA factors on the device, where sets are multiplied from those; `evaluator` calls the
    UNet, from the step thread alone.
    """

    model: Model
    sets: FusedSets
    switches: Mapping[str, Callable[[Overlay], None]]
    evaluator: Evaluator
    resident: ResidentFiles | None = None

    @classmethod
    def of(cls, model: Model, *, lora_cache_bytes: int, options: DeviceOptions | None = None) -> ServedModel:
        """Wrap a loaded model.

        Raises:
            ModelError: the options ask for what the device cannot do.

        """
        components = model.lora_components()
        chosen = (options or DeviceOptions()).on(model.device.type)
        if chosen is None:
            raise ModelError(
                f"--compile graphs needs a CUDA device, and the model {model.info.name!r} is on "
                f"{model.device.type}; use --compile blocks or off"
            )
        resident, by_core = None, False
        if chosen.resident_factors:
            resident = ResidentFiles(components, capacity_bytes=chosen.factor_bytes)
        elif chosen.packs and is_channels_last(model.unet):
            pack_convolutions(model.unet)
            if model.device.type == "cpu":
                make_direct(model.unet)
                make_direct(model.vae)
                use_onednn(model.unet)
                by_core = model.dtype == torch.bfloat16
        evaluator = Evaluator(model.unet, chosen.compiling, by_core=by_core)
        sets = FusedSets(components, base=model.info.base, capacity_bytes=lora_cache_bytes, resident=resident)
        factor = model.info.vae_scale_factor
        for width, height in chosen.sizes or ((model.info.width, model.info.height),):
            # Beside: the size that most will ask for, one picture with guidance.
            evaluator.begin(example_inputs(model.unet, 2, height // factor, width // factor))
        finish_device(model.device)  # each thread has a stream of its own from here on
        return cls(model, sets, _switches(components, resident), evaluator, resident)

    def use(self, component: str, lease: Lease) -> None:
        """Have `component` compute with the weights of the lease's set."""
        self.switches[component](lease.overlay)

    def restore(self) -> None:
        """Give the model its pristine weights back, once no thread uses it."""
        self._stop()
        unpack_convolutions(self.model.unet)
        make_usual(self.model.unet)
        make_usual(self.model.vae)
        use_torch(self.model.unet)

    def _stop(self) -> None:
        self.evaluator.close()
        for switch in self.switches.values():
            switch(BASE)

    def unload(self) -> None:
        """Free the weights, but for the VAE's, which go with the last preview that needs them."""
        self._stop()
        drop_packed(self.model.unet)
        for network in self.model.lora_components().values():
            network.to("meta")
        if self.resident is not None:
            self.resident.release()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    @property
    def weight_bytes(self) -> int:
        """What the weights hold, those that stand beside the pristine ones included."""
        networks = (self.model.vae, *self.model.lora_components().values())
        beside = 0 if self.resident is None else self.resident.weight_bytes
        held: int = sum(network.get_memory_footprint() for network in networks)
        return beside + held


def _switches(
    components: Mapping[str, nn.Module], resident: ResidentFiles | None
) -> dict[str, Callable[[Overlay], None]]:
    if resident is not None:
        return {name: LiveSwitch(resident.live[name], name).use for name in components}
    return {name: partial(_use_named, OverlaySwitch(network), name) for name, network in components.items()}


def _use_named(switch: OverlaySwitch, component: str, overlay: Overlay) -> None:
    switch.use(overlay.tensors.get(component, {}))
