"""Networks and tokenizers of different models, put together in either layout."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.support.refusals import refused, rewritten

Folders = Mapping[tuple[str, bool], Path]


@pytest.fixture
def broken(folders: Folders, tmp_path: Path) -> Path:
    """A folder of SD1's structure for a test that breaks it."""
    return Path(shutil.copytree(folders["sd15", False], tmp_path / "model"))


def test_the_text_encoder_of_another_base_in_a_folder(broken: Path, folders: Folders) -> None:
    """Its embeddings are of another width than the UNet attends to."""
    shutil.rmtree(broken / "text_encoder")
    shutil.copytree(folders["sdxl", False] / "text_encoder_2", broken / "text_encoder")
    refused(broken, "attends to texts of width 64, and its text encoder gives 128: .* different models")


def test_the_text_encoder_of_another_base_in_a_file(sd15: Path) -> None:
    """A merge of two bases is refused alike."""
    tensors = load_file(sd15)
    wider = {
        name: one.repeat(1, 2)
        for name, one in tensors.items()
        if "attn2.to_k" in name or "attn2.to_v" in name
    }
    refused(rewritten(sd15, tensors | wider), "to texts of width 128, and its text encoder gives 64")


def test_no_vocabulary_in_a_folder(broken: Path) -> None:
    """A tokenizer's settings alone would make a tokenizer that knows no word."""
    (broken / "tokenizer" / "tokenizer.json").unlink()
    refused(broken, "tokenizer holds no vocabulary: neither tokenizer.json nor vocab.json; download it")


def test_more_tokens_than_the_text_encoder_knows(broken: Path) -> None:
    """A word beyond the embeddings would end the job that uses it."""
    path = broken / "tokenizer" / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 9999, "content": "<extra>"})
    path.write_text(json.dumps(content))
    refused(broken, r"the tokenizer of .* has 524 tokens and its text encoder knows 523: .* different models")
