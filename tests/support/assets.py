"""What the packaged model and LoRAs are, for tests that need more than their names."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from pathlib import Path

LORAS = Path(str(files("sdgrpc") / "assets/tiny/loras"))


def lora_names() -> tuple[str, ...]:
    """The packaged LoRAs, as requests name them."""
    return tuple(sorted(path.stem for path in LORAS.glob("*.safetensors")))


def lora_hashes() -> tuple[str, ...]:
    """Their hashes, in the same order."""
    paths = (LORAS / f"{name}.safetensors" for name in lora_names())
    return tuple(hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
