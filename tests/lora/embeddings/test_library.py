"""Textual inversions in folders: read by their words, judged for text encoders, hashed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdgrpc.lora.embeddings.library import NOTHING, EmbeddingLibrary
from tests.support.loras import to_file

SD1, SD2 = {"text_encoder": 768}, {"text_encoder": 1024}
SDXL = {"text_encoder": 768, "text_encoder_2": 1280}


def rows(count: int, width: int) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(count))


FORMS: Mapping[str, tuple[dict[str, Tensor], str, int]] = {
    "web UI": ({"emb_params": rows(3, 768)}, "sd15", 3),
    "web UI, SD2": ({"emb_params": rows(2, 1024)}, "sd2", 2),
    "diffusers": ({"<cat-toy>": rows(1, 768)[0]}, "sd15", 1),
    "diffusers, several": ({"<cat-toy>": rows(4, 768)}, "sd15", 4),
    "SDXL": ({"clip_l": rows(2, 768), "clip_g": rows(2, 1280)}, "sdxl", 2),
    "SDXL of diffusers": ({"text_encoders_0": rows(2, 768), "text_encoders_1": rows(2, 1280)}, "sdxl", 2),
    "the embedded model's": ({"emb_params": rows(2, 128)}, "embedded", 2),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_read(tmp_path: Path, form: str) -> None:
    """By the file's name, whatever stands inside; its vectors are what was written."""
    tensors, base, count = FORMS[form]
    path = to_file(tmp_path / "styles/My Face.safetensors", tensors)
    library = EmbeddingLibrary([tmp_path])
    widths = {"sd15": SD1, "sd2": SD2, "sdxl": SDXL, "embedded": {"text_encoder": 128}}[base]
    found = library.learned(["my face"], widths)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.hashes == (("My Face", sha256),)
    assert found.refused == {}
    for encoder, expected in zip(widths, tensors.values(), strict=True):
        assert torch.equal(found.tokens["my face"][encoder], expected.reshape(-1, widths[encoder]))
    (info,) = library.listed(widths)
    assert (info.name, info.base, info.vectors, info.sha256) == ("My Face", base, count, sha256)
    assert (info.size, info.fits) == (path.stat().st_size, True)


@pytest.mark.parametrize(
    ("form", "widths", "why"),
    [
        ("web UI", SD2, "its shape is [3, 768]; text_encoder takes vectors of 1024"),
        ("web UI", SDXL, "the file has no vectors for text_encoder_2"),
        ("SDXL", SD1, "it is for SDXL: it has vectors for two text encoders"),
        ("SDXL", SD2, "it is for SDXL: it has vectors for two text encoders"),
    ],
)
def test_of_another_base(tmp_path: Path, form: str, widths: dict[str, int], why: str) -> None:
    """It is refused, with the widths."""
    to_file(tmp_path / "face.safetensors", FORMS[form][0])
    library = EmbeddingLibrary([tmp_path])
    found = library.learned(["face"], widths)
    assert (found.tokens, found.refused, found.hashes) == ({}, {"face": why}, ())
    assert library.listed(widths)[0].refusal == why
    assert library.listed()[0].fits


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"a": rows(1, 768), "b": rows(1, 768)}, "it holds no textual inversion, but 2 tensors ('a', 'b')"),
        ({"emb_params": rows(2, 768)[None]}, "it holds no textual inversion"),
        ({"clip_l": rows(2, 768), "clip_g": rows(3, 1280)}, "it has 2 and 3 vectors"),
        (
            {"clip_l": rows(76, 768), "clip_g": rows(76, 1280)},
            "it has 76 vectors; a chunk of the prompt holds 75",
        ),
        ({"clip_l": rows(2, 768) * float("nan"), "clip_g": rows(2, 1280)}, "'clip_l'"),
    ],
)
def test_broken_files(tmp_path: Path, tensors: dict[str, Tensor], why: str) -> None:
    """They say what is wrong, and are listed."""
    to_file(tmp_path / "face.safetensors", tensors)
    library = EmbeddingLibrary([tmp_path])
    assert why in library.learned(["face"], SDXL).refused["face"]
    assert why in library.listed(SDXL)[0].refusal


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    """Truncated, too large a claim, or a pickle under a safetensors name: refused; a `.pt` is not there."""
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}")
    (tmp_path / "pickle.safetensors").write_bytes(b"PK\x03\x04" * 10)
    (tmp_path / "old.pt").write_bytes(b"PK\x03\x04")
    library = EmbeddingLibrary([tmp_path])
    assert sorted(library.words()) == ["cut", "pickle"]
    found = library.learned(["cut", "pickle", "old"], SD1)
    assert set(found.refused) == {"cut", "pickle"}
    assert all(not why.startswith("LoRA") for why in found.refused.values())


def test_files_that_are_called_alike(tmp_path: Path) -> None:
    """A model uses the first that fits it; only where none does the word is refused."""
    to_file(tmp_path / "sd1/face.safetensors", FORMS["web UI"][0])
    to_file(tmp_path / "xl/face.safetensors", FORMS["SDXL"][0])
    library = EmbeddingLibrary([tmp_path])
    assert len(library.learned(["face"], SD1).tokens["face"]["text_encoder"]) == 3
    assert len(library.learned(["face"], SDXL).tokens["face"]["text_encoder_2"]) == 2
    assert "takes vectors of 1024" in library.learned(["face"], SD2).refused["face"]
    assert [info.base for info in library.listed()] == ["sd15", "sdxl"]


def test_folders_change(tmp_path: Path) -> None:
    """A file that comes is a word at once, and one that is written anew has other vectors."""
    library = EmbeddingLibrary([tmp_path])
    assert library.words() == {}
    path = to_file(tmp_path / "face.safetensors", FORMS["web UI"][0])
    first = library.learned(["face"], SD1)
    assert library.learned(["face"], SD1).tokens["face"]["text_encoder"] is not None
    to_file(path, FORMS["diffusers"][0])
    second = library.learned(["face"], SD1)
    assert first.hashes != second.hashes
    assert len(second.tokens["face"]["text_encoder"]) == 1
    path.unlink()
    assert library.learned(["face"], SD1).tokens == {}
    assert EmbeddingLibrary().words() == {}
    assert NOTHING.tokens == {}
