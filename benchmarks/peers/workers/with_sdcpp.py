"""stable-diffusion.cpp through its Python binding, with LoRA files named in the prompt."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from benchmarks.peers.workers.loop import GUIDANCE, NEGATIVE, PROMPT, Drawing, Place, serve


class WithSdcpp:
    """Its context on one file; `way` is how it applies LoRA files: auto, immediately or at_runtime."""

    def __init__(self, way: str) -> None:
        self._way = way

    def load(self, place: Place) -> None:
        """See `Peer.load`."""
        binding = importlib.import_module("stable_diffusion_cpp")
        self._pipe: Any = binding.StableDiffusion(
            model_path=str(place.file),
            lora_model_dir=str(place.loras),
            lora_apply_mode=self._way,
            vae_decode_only=True,
            verbose=False,
        )

    def draw(self, asked: Drawing) -> None:
        """See `Peer.draw`."""
        tags = "".join(f"<lora:{name}:{strength}>" for name, strength in asked.loras)
        pictures = self._pipe.generate_image(
            PROMPT + tags,
            negative_prompt=NEGATIVE,
            width=asked.side,
            height=asked.side,
            cfg_scale=GUIDANCE,
            sample_method="euler",
            sample_steps=asked.steps,
            seed=asked.seed,
        )
        if not pictures:
            raise RuntimeError("no picture came")


if __name__ == "__main__":
    serve(WithSdcpp(sys.argv[1]))
