"""Models by their names on the Hugging Face hub, fetched once into its cache."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download

from sdgrpc.errors import ModelError

# `owner/name`; anything with more slashes, or that begins with one or a dot, is a path.
NAME = re.compile(r"[A-Za-z0-9_][\w.-]*/[\w.-]+")

# What a folder is loaded from: no pickles, none of the original single files beside it, and half precision
# only where there is no other.
WEIGHTS = ("{}.safetensors", "{}-*-of-*.safetensors", "{}.safetensors.index.json")
HALF_WEIGHTS = ("{}.fp16.safetensors", "{}.fp16-*-of-*.safetensors", "{}.safetensors.index.fp16.json")
STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}
FILES = (
    "model_index.json",
    "sdgrpc.json",
    "scheduler/scheduler_config.json",
    "tokenizer/*",
    "tokenizer_2/*",
    *(f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")),
    *(f"{part}/{one.format(stem)}" for part, stem in STEMS.items() for one in WEIGHTS),
)


def is_name(source: str) -> bool:
    """Whether `source` is written as a hub's name, `owner/name`."""
    return NAME.fullmatch(source) is not None


def fetch(name: str) -> Path:
    """The folder of the model `name` in the hub's cache, fetched or brought up to date first.

    The library's own environment holds: HF_HOME is where the cache lies, and with HF_HUB_OFFLINE=1 nothing is
    fetched. Without a network the cached model is used as it is.

    Raises:
        ModelError: it is neither cached nor to be had.

    """
    try:
        folder = Path(snapshot_download(name, allow_patterns=list(FILES)))
        lacking = [part for part in STEMS if (folder / part).is_dir() and not _has_weights(folder / part)]
        if lacking:
            half = [f"{part}/{one.format(STEMS[part])}" for part in lacking for one in HALF_WEIGHTS]
            folder = Path(snapshot_download(name, allow_patterns=[*FILES, *half]))
        return folder
    except Exception as error:
        # Offline, unknown, gated, interrupted: the library has a class for each, the operator one question.
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"{name} is no folder or file here, nor a model that the hub or its cache gives: {reason[0]} "
            "Check the name; without a network fetch it beforehand, or set HF_HOME to a cache that has it"
        ) from error


def _has_weights(place: Path) -> bool:
    return any(place.glob("*.safetensors"))
