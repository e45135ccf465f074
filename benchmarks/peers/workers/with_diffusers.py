"""diffusers with PEFT: adapters as they come, on a compiled UNet, or swapped into slots of a compiled UNet.

Adapters that were loaded stay loaded, so that a set that is back costs no reading. Hotswapping takes no
text encoder, so there the files' parts for it are left out.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline
from safetensors.torch import load_file

from benchmarks.peers.workers.loop import GUIDANCE, NEGATIVE, PROMPT, Drawing, Place, serve

RANK = 16


class WithDiffusers:
    """A pipeline with its adapters; `way` is peft, compiled or hotswap."""

    def __init__(self, way: str) -> None:
        self._way = way
        self._loaded: list[str] = []
        self._slots: dict[str, str] = {}  # hotswap: what is in each adapter

    def load(self, place: Place) -> None:
        """See `Peer.load`."""
        self._folder = place.loras
        pipe = StableDiffusionPipeline.from_pretrained(
            place.model, torch_dtype=getattr(torch, place.dtype), safety_checker=None
        )
        pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
        pipe.set_progress_bar_config(disable=True)
        if self._way == "hotswap":
            pipe.enable_lora_hotswap(target_rank=RANK)
        if self._way == "compiled":
            pipe.unet.compile_repeated_blocks()
        self._pipe: Any = pipe

    @torch.inference_mode()
    def draw(self, asked: Drawing) -> None:
        """See `Peer.draw`."""
        if self._way == "hotswap":
            self._swap(asked)
        else:
            self._activate(asked)
        self._pipe(
            PROMPT,
            negative_prompt=NEGATIVE,
            width=asked.side,
            height=asked.side,
            num_inference_steps=asked.steps,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(asked.seed),
        )

    def _activate(self, asked: Drawing) -> None:
        names = [name for name, _ in asked.loras]
        for name in names:
            if name not in self._loaded:
                self._pipe.load_lora_weights(
                    self._folder, weight_name=f"{name}.safetensors", adapter_name=name
                )
                self._loaded.append(name)
        self._use(names, [strength for _, strength in asked.loras])

    def _swap(self, asked: Drawing) -> None:
        slots = [f"slot{number}" for number in range(len(asked.loras))]
        for slot, (name, _) in zip(slots, asked.loras, strict=True):
            if self._slots.get(slot) != name:
                state = load_file(Path(self._folder) / f"{name}.safetensors")
                unet = {key: tensor for key, tensor in state.items() if key.startswith("lora_unet_")}
                self._pipe.load_lora_weights(unet, adapter_name=slot, hotswap=slot in self._slots)
                self._slots[slot] = name
                if len(self._slots) == 1:
                    self._pipe.unet.compile_repeated_blocks()
        self._loaded = list(self._slots)
        self._use(slots, [strength for _, strength in asked.loras])

    def _use(self, names: list[str], strengths: list[float]) -> None:
        if names:
            self._pipe.enable_lora()
            self._pipe.set_adapters(names, strengths)
        elif self._loaded:
            self._pipe.disable_lora()


if __name__ == "__main__":
    serve(WithDiffusers(sys.argv[1]))
