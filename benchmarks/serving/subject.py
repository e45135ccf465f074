"""What both sides draw with: a model of Stable Diffusion 1.5's real size, or a tiny one, and LoRA files."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionPipeline

from benchmarks.layout import lay_out
from sdgrpc.diffusion.checkpoints.card import model_info
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.checkpoints.precision import memory_format, vae_dtype
from sdgrpc.diffusion.model import Model
from sdgrpc.embedded import embedded_folder
from tests.support.full_size import full_size_networks
from tests.support.lora_sets import save_kohya_lora
from tests.support.models import SD15_SCHEDULER, save_model, tiny_tokenizer

PROMPT = "a red cat on a blue chair, oil on canvas"


@dataclass(frozen=True, eq=False)
class Subject:
    """The model, a folder with LoRA files and their names."""

    model: Model
    lora_dir: Path
    loras: tuple[str, ...]
    tiny: bool = False

    def pipeline(self, *, own_weights: bool = False) -> Any:  # noqa: ANN401 - diffusers has no types
        """Return diffusers' pipeline on the same networks, or on copies that it may fuse LoRAs into."""
        model = self.model
        parts = {"unet": model.unet, "text_encoder": model.text_encoders["text_encoder"]}
        if own_weights:
            parts = {name: copy.deepcopy(part) for name, part in parts.items()}
        pipe = StableDiffusionPipeline(
            **parts,
            vae=model.vae,
            tokenizer=model.tokenizers["tokenizer"],
            scheduler=EulerDiscreteScheduler.from_config(model.scheduler_config),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipe.set_progress_bar_config(disable=True)
        return pipe


def make_subject(
    folder: Path, dtype: torch.dtype, *, tiny: bool, embedded: bool = False, loras: int = 12
) -> Subject:
    """Build the model, with random weights unless it is the embedded one, and write files for it."""
    if embedded:
        model = load("subject", embedded_folder(), device=torch.device("cpu"), dtype=dtype)
    else:
        model = _tiny(folder, dtype) if tiny else _real(dtype)
    lora_dir = folder / "loras"
    lora_dir.mkdir()
    names = tuple(f"lora{number}" for number in range(loras))
    for number, name in enumerate(names):
        save_kohya_lora(model, lora_dir / f"{name}.safetensors", seed=number)
    return Subject(model, lora_dir, names, tiny)


def _tiny(folder: Path, dtype: torch.dtype) -> Model:
    return load("subject", save_model(folder / "model"), device=torch.device("cpu"), dtype=dtype)


def _real(dtype: torch.dtype) -> Model:
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    networks = full_size_networks(tokenizer)
    layout = memory_format(sum(one.numel() for one in networks["unet"].parameters()), torch.device("cpu"))
    for name, network in networks.items():
        network.to(vae_dtype(dtype) if name == "vae" else dtype)
        lay_out(network, layout).requires_grad_(False).eval()
    parts = networks | {"tokenizer": tokenizer}
    return Model(
        info=model_info("subject", Path("none"), parts, SD15_SCHEDULER, embedded=False),
        tokenizers={"tokenizer": tokenizer},
        text_encoders={"text_encoder": networks["text_encoder"]},
        unet=networks["unet"],
        vae=networks["vae"],
        scheduler_config=dict(SD15_SCHEDULER),
        device=torch.device("cpu"),
        dtype=dtype,
    )
