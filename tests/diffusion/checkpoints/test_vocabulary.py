"""CLIP's vocabulary for single files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from tests.support.refusals import refused

CPU = torch.device("cpu")


def test_no_vocabulary(sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a vocabulary anywhere the sentence says where to put one."""
    (sd15.parent / "tokenizer").unlink()
    monkeypatch.setattr("sdgrpc.diffusion.checkpoints.vocabulary.CACHED", (("nobody/has-this", ""),))
    refused(
        sd15,
        r"needs CLIP's vocabulary.* at .*/tokenizer, name such a folder with --tokenizer, or fetch nobody",
    )
    refused(sd15, "holds no CLIP vocabulary", tokenizer=tmp_path)


def test_a_vocabulary_from_the_hubs_cache(
    sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other tools have fetched is found without a network."""
    beside = (sd15.parent / "tokenizer").resolve()
    (sd15.parent / "tokenizer").unlink()
    repository = tmp_path / "hub" / "models--openai--clip-vit-large-patch14"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(beside)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load("cached", sd15, device=CPU, dtype=None)
    assert len(model.tokenizers["tokenizer"]) == model.text_encoders["text_encoder"].config.vocab_size


def test_another_vocabulary(sd15: Path, tmp_path: Path, folders: Mapping[tuple[str, bool], Path]) -> None:
    """A vocabulary of another size is refused."""
    copy = tmp_path / "other"
    copy.mkdir()
    for file in (folders["sd15", False] / "tokenizer").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = json.loads((copy / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 9999, "content": "<extra>"})
    (copy / "tokenizer.json").write_text(json.dumps(content))
    refused(sd15, r"has \d+ tokens; .*one.safetensors has", tokenizer=copy)
