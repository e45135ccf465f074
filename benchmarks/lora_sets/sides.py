"""The two sides of the comparison: our cache of fused sets, and a pipeline of diffusers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from torch import Tensor, nn

from sdgrpc.domain import LoraRef
from sdgrpc.lora.fusing.cache import FusedSets, Lease, OverlaySwitch
from sdgrpc.lora.store.library import LoraLibrary


class Ours:
    """A cache of fused sets for `components`, and files read by a library that can be made to forget them."""

    def __init__(self, components: Mapping[str, nn.Module], folder: Path, capacity_bytes: int) -> None:
        self._folder = folder
        self.sets = FusedSets(components, base="sd15", capacity_bytes=capacity_bytes)
        self.switches = {name: OverlaySwitch(module) for name, module in components.items()}
        self.forget()

    def forget(self) -> None:
        """Forget every file that was read."""
        self._library = LoraLibrary([self._folder])

    def acquire(self, names: Sequence[str], strengths: Sequence[float]) -> Lease:
        """Read the files that are not known, and fuse the set if it is not there."""
        refs = [
            LoraRef(name=name, strength=strength, text_encoder_strength=strength)
            for name, strength in zip(names, strengths, strict=True)
        ]
        return self.sets.acquire([(self._library.find(ref), ref) for ref in refs])

    def activate(self, lease: Lease) -> None:
        """Make the models compute with a set."""
        for name, switch in self.switches.items():
            switch.use(lease.overlay.tensors.get(name, {}))

    def base(self) -> None:
        """Make the models compute with their own weights."""
        for switch in self.switches.values():
            switch.use({})


class Copy:
    """Copying the weights that a set touches into warm memory: what fusing costs at the very least."""

    def __init__(self, components: Mapping[str, nn.Module], lease: Lease) -> None:
        named = {name: dict(module.named_parameters()) for name, module in components.items()}
        self._sources = [
            named[name][key].detach() for name, tensors in lease.overlay.tensors.items() for key in tensors
        ]
        self._targets = [torch.empty_like(source) for source in self._sources]

    @property
    def nbytes(self) -> int:
        """Bytes of the weights."""
        return sum(source.nbytes for source in self._sources)

    def __call__(self) -> None:
        """Copy them all."""
        for target, source in zip(self._targets, self._sources, strict=True):
            target.copy_(source)


class Theirs:
    """diffusers' way: adapters loaded into the modules, then fused into the weights."""

    def __init__(self, components: Mapping[str, nn.Module], folder: Path) -> None:
        self._folder = folder
        self.pipeline = StableDiffusionPipeline(
            vae=None,
            tokenizer=None,
            scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
            **components,
        )

    def load(self, names: Sequence[str]) -> None:
        """`load_lora_weights` of each file, as an adapter of its name."""
        for name in names:
            file = f"{name}.safetensors"
            self.pipeline.load_lora_weights(self._folder, weight_name=file, adapter_name=name)

    def fuse(self, names: Sequence[str], strengths: Sequence[float]) -> None:
        """`set_adapters` and `fuse_lora`."""
        self.pipeline.set_adapters(list(names), list(strengths))
        self.pipeline.fuse_lora(adapter_names=list(names))

    def refuse(self, names: Sequence[str], strengths: Sequence[float]) -> None:
        """Go from what is fused to another set that is loaded."""
        self.pipeline.unfuse_lora()
        self.fuse(names, strengths)

    def clear(self) -> None:
        """Unfuse and forget all adapters."""
        self.pipeline.unfuse_lora()
        self.pipeline.unload_lora_weights()


@torch.inference_mode()
def step(unet: nn.Module, latents: Tensor, text: Tensor) -> Tensor:
    """One call of the U-Net with guidance: two rows."""
    return unet(latents, torch.tensor(500), encoder_hidden_states=text).sample
