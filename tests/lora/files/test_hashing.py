"""The hashes by which a file is known: ours, and A1111's."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sdgrpc.lora.files.hashing import told_autov3
from sdgrpc.lora.files.reading import hashes, read
from tests.support.assets import LORAS

TOLD = "0f6f5a0d9e1c" + "a" * 52


def written(path: Path, metadata: dict[str, str] | None = None) -> Path:
    """A file that is larger than a piece of the hashing."""
    save_file({"x.lora_up.weight": torch.ones(600, 700), "x.alpha": torch.tensor(1.0)}, path, metadata)
    return path


def by_hand(path: Path) -> str:
    """As `addnet_hash_safetensors` of the web UI: the SHA-256 of what follows the header."""
    content = path.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()[:12]


def test_the_embedded_postcard() -> None:
    """What the web UI says of this file."""
    assert hashes(LORAS / "postcard.safetensors").autov3 == "4d72d55ecbd1"
    assert read(LORAS / "postcard.safetensors", "postcard").autov3 == "4d72d55ecbd1"


def test_both_ways_to_hash_agree(tmp_path: Path) -> None:
    """Read for its tensors or piece by piece; from a path or from memory."""
    path = written(tmp_path / "a.safetensors", {"ss_network_dim": "8"})
    found = hashes(path)
    assert found == (hashlib.sha256(path.read_bytes()).hexdigest(), by_hand(path))
    for source in (path, path.read_bytes()):
        file = read(source, "a")
        assert (file.sha256, file.autov3) == found


def test_the_header_does_not_matter(tmp_path: Path) -> None:
    """Metadata that is edited changes our hash, and not A1111's."""
    one, other = (
        hashes(written(tmp_path / f"{word}.safetensors", {"comment": word})) for word in ("one", "another")
    )
    assert one.sha256 != other.sha256
    assert one.autov3 == other.autov3


def test_what_the_trainer_wrote_counts(tmp_path: Path) -> None:
    """`sshs_model_hash` goes first, as in the web UI; the older `sshs_legacy_hash` is another number."""
    path = written(tmp_path / "a.safetensors", {"sshs_model_hash": TOLD, "sshs_legacy_hash": "deadbeef"})
    assert hashes(path).autov3 == read(path, "a").autov3 == TOLD[:12] != by_hand(path)


@pytest.mark.parametrize(
    ("told", "found"),
    [
        (TOLD, TOLD[:12]),
        (TOLD.upper(), TOLD[:12]),
        ("", ""),
        ("abc", ""),
        ("x" * 64, ""),
        (f"{TOLD}, b: 1", ""),
    ],
)
def test_only_a_hash_is_believed(told: str, found: str) -> None:
    """Metadata are anybody's: nothing else gets into a picture's parameters."""
    assert told_autov3({"sshs_model_hash": told}) == found


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\xff" * 40])
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    """It has a SHA-256, and none that A1111 would give a LoRA."""
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert hashes(path) == (hashlib.sha256(content).hexdigest(), "")
