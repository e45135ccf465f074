"""Models that are broken on purpose, and the sentences that refuse them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.errors import ModelError


def refused(source: Path, message: str, *, tokenizer: Path | None = None) -> None:
    """Loading fails with a sentence that `message`, a regular expression, is found in."""
    with pytest.raises(ModelError, match=message):
        load("broken", source, device=torch.device("cpu"), dtype=None, tokenizer=tokenizer)


def edit(path: Path, **changes: Any) -> None:
    """Change values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewritten(path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """The file with other tensors, made anew: tensors that were loaded from it are mapped."""
    path.unlink()
    save_file(tensors, path)
    return path
