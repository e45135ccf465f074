"""A folder of textual inversions for the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.model import Model
from tests.support.loras import to_file


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Model) -> Path:
    """`Blob` with the vectors of two words of the model, another base's `large`, and a broken one."""
    folder, model = tmp_path / "words", tiny_model
    ids = model.tokenizers["tokenizer"]("red heart", add_special_tokens=False).input_ids
    rows = model.text_encoders["text_encoder"].get_input_embeddings().weight[ids].detach()
    to_file(folder / "Blob.safetensors", {"emb_params": rows.float().contiguous()})
    to_file(folder / "large.safetensors", {"clip_l": torch.ones(1, 768), "clip_g": torch.ones(1, 1280)})
    (folder / "broken.safetensors").write_bytes(b"nothing much")
    return folder
