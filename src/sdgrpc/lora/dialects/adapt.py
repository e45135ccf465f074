"""The one way in: a file of any dialect becomes an adapter, or is refused by name."""

from __future__ import annotations

from pathlib import Path

from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.foreign import EMBEDDING, reject_foreign
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import PeftConfig
from sdgrpc.lora.files.reading import TensorFile

EMBEDDING_WIDTHS = frozenset({768, 1024, 1280})

CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20


def adapt(file: TensorFile, config: PeftConfig | None = None) -> Adapter:
    """Turn a file into an adapter unless it is for another architecture.

    Raises:
        LoraIncompatible: says what the file is for.
        LoraMalformed, LoraUnsupported: as `keys.parse` does.

    """
    reject_foreign(file.name, file.tensors)
    return adapt_own(file, config)


def adapt_own(file: TensorFile, config: PeftConfig | None = None) -> Adapter:
    """The same for a file whose keys `reject_foreign` has seen."""
    adapter = parse(file, config)
    if not adapter.modules:
        told = EMBEDDING if _is_embedding(file) else "holds no LoRA tensors of any format that is known"
        raise LoraIncompatible(file.name, told)
    return adapter


def _is_embedding(file: TensorFile) -> bool:
    """Whether every tensor is a row of vectors of a text encoder's width, under a plain word as its key."""
    return bool(file.tensors) and all(
        tensor.ndim in (1, 2) and tensor.shape[-1] in EMBEDDING_WIDTHS and "." not in key
        for key, tensor in file.tensors.items()
    )


def read_config(path: Path) -> str:
    """Return the text of a PEFT configuration beside a file; empty where there is none that can be read."""
    config = path.parent / CONFIG_NAME
    try:
        if config.is_symlink() or config.stat().st_size > MAX_CONFIG_BYTES:
            return ""
        return config.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
