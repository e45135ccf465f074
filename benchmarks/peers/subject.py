"""What all draw with: Stable Diffusion 1.5's real configuration, random weights, LoRA files of rank 16."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from tests.support.full_size import save_full_size, save_full_size_file
from tests.support.models import save_model

VOCABULARY = 49408  # CLIP's, which stable-diffusion.cpp has built in
RANK = 16
CHANGED = ("to_q", "to_k", "to_v", "to_out_0", "q_proj", "k_proj", "v_proj", "out_proj")


class Subject:
    """A model as a folder and as one file, a folder of LoRA files, and their names."""

    def __init__(self, folder: Path, *, tiny: bool = False, narrower: int = 1, loras: int = 12) -> None:
        self.model, self.file, self.loras = folder / "model", folder / "model.safetensors", folder / "loras"
        self.names = tuple(f"lora{number:02}" for number in range(loras))
        if not (self.model / "model_index.json").exists():
            if tiny:
                save_model(self.model)
            else:
                save_full_size(self.model, torch.float16, tokenizer_of_clips_size(), narrower)
        if not tiny and narrower == 1 and not self.file.exists():
            save_full_size_file(self.model, self.file)
        self.loras.mkdir(exist_ok=True)
        for seed, name in enumerate(self.names):
            path = self.loras / f"{name}.safetensors"
            if not path.exists():
                save_file(_factors(self.model, seed), path, metadata={"ss_base_model_version": "sd_v1"})


def tokenizer_of_clips_size() -> CLIPTokenizer:
    """A tokenizer with as many tokens as CLIP's, of merges that mean nothing."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]  # the stand-ins for bytes of byte-level BPE
    letters = [*map(chr, kept), *(chr(256 + number) for number in range(256 - len(kept)))]
    ends = [f"{letter}</w>" for letter in letters]
    pairs = [(left, right) for left in letters for right in ends]
    merges = pairs[: VOCABULARY - 2 - len(letters) - len(ends)]
    tokens = [*letters, *ends, *map("".join, merges), "<|startoftext|>", "<|endoftext|>"]
    vocab = {token: index for index, token in enumerate(tokens)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def _factors(model: Path, seed: int) -> dict[str, torch.Tensor]:
    """A LoRA of the attention layers of the UNet and the text encoder, in kohya's names."""
    chance = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for prefix, network in _networks(model):
        for path, module in network.named_modules():
            name = path.replace(".", "_")
            if not isinstance(module, nn.Linear) or not name.endswith(CHANGED):
                continue
            key = f"{prefix}_{name}"
            found[f"{key}.lora_down.weight"] = torch.randn(RANK, module.in_features, generator=chance) / 32
            found[f"{key}.lora_up.weight"] = torch.randn(module.out_features, RANK, generator=chance) / 32
            found[f"{key}.alpha"] = torch.tensor(float(RANK))
    return {key: tensor.half() for key, tensor in found.items()}


def _networks(model: Path) -> Iterator[tuple[str, nn.Module]]:
    """The networks without their weights."""

    def config(name: str) -> Mapping[str, Any]:
        read: dict[str, Any] = json.loads((model / name / "config.json").read_text(encoding="utf-8"))
        return read

    with init_empty_weights():
        yield "lora_unet", UNet2DConditionModel.from_config(config("unet"))
        encoder = CLIPTextModel(CLIPTextConfig(**config("text_encoder")))
    yield "lora_te_text_model", encoder.text_model if hasattr(encoder, "text_model") else encoder
