"""The one way in for a LoRA file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import sdgrpc
from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.dialects.adapt import read_adapter, sketch_adapter
from tests.support.files import BytesRead, sparse_checkpoint
from tests.support.loras import LINEAR, kohya_file, to_bytes, to_file

PACKAGE = Path(sdgrpc.__file__).parent
OPENINGS = {"read", "sketch"}
MAY_OPEN = {"lora/dialects/adapt.py", "lora/files/reading.py", "lora/files/convert.py"}
WEIGHTS = {"lora/describing/verify.py"}
"""Reads a model's weights, no LoRA."""
WORDS = {"lora/embeddings/files.py"}
"""Reads textual inversions, which no LoRA brings."""


def openings(path: Path) -> set[str]:
    """Return which of the reader's functions that give tensors a module calls or imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "reading"
    }
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "sdgrpc.lora.files.reading"
        for alias in node.names
    }
    return (called | imported) & OPENINGS


def test_there_is_one_way_in() -> None:
    """Nobody else reads tensors of a LoRA file: whoever wants one asks `adapt`."""
    found = {path.relative_to(PACKAGE).as_posix(): openings(path) for path in PACKAGE.rglob("*.py")}
    assert {name for name, calls in found.items() if calls} <= MAY_OPEN | WEIGHTS | WORDS
    assert found["lora/dialects/adapt.py"] == OPENINGS


def test_whole_and_by_its_header(tmp_path: Path) -> None:
    """Both ways give the same modules, with their tensors or without, and the same metadata."""
    path = to_file(tmp_path / "a.safetensors", kohya_file(LINEAR), {"ss_output_name": "x"})
    whole, sketch = read_adapter(path, "a"), sketch_adapter(path, "a")
    assert sketch.adapter is not None
    assert [one.spelling for one in sketch.adapter.modules] == [one.spelling for one in whole.modules]
    assert all(tensor.is_meta for one in sketch.adapter.modules for tensor in one.tensors.values())
    assert sketch.metadata == whole.metadata == {"ss_output_name": "x"}
    assert sketch.tensor_count == whole.tensor_count == 3
    assert read_adapter(to_bytes(kohya_file(LINEAR)), "a").modules


def test_a_checkpoint_is_refused_by_its_header(tmp_path: Path, bytes_read: BytesRead) -> None:
    """Before any of its data is read, both ways; what the header says is kept."""
    path = sparse_checkpoint(tmp_path / "whole.safetensors")
    with pytest.raises(LoraIncompatible, match="is a full checkpoint"):
        read_adapter(path, "a")
    sketch = sketch_adapter(path, "a")
    assert isinstance(sketch.refusal, LoraIncompatible)
    assert (sketch.adapter, sketch.tensor_count) == (None, 2)
    assert bytes_read.of(path) < 1000


def test_the_configuration_is_the_callers(tmp_path: Path) -> None:
    """Without one, what lies beside the file counts; an empty one is none."""
    prefix = "base_model.model.a.lora"
    tensors = {f"{prefix}_A.weight": torch.ones(4, 2), f"{prefix}_B.weight": torch.ones(3, 4)}
    path = to_file(tmp_path / "adapter_model.safetensors", tensors)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": 8, "r": 4}')
    assert read_adapter(path, "a").modules[0].alpha == 8.0
    assert read_adapter(path, "a", config="").modules[0].alpha is None
