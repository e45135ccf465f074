"""All weights that were ever committed stay small: a clone is quick, and so is the wheel."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.assets import LORAS

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".gguf", ".npz")
MOST = 20_000_000
MOST_OF_A_LORA = 650_000


def sizes_of_history() -> dict[str, int]:
    """Object and path -> bytes of every weight that a commit before this one or this one holds."""
    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no repository around the tests")
    listed = subprocess.run([git, "rev-list", "--objects", "HEAD"], cwd=ROOT, capture_output=True, check=True)
    objects = [line for line in listed.stdout.decode().splitlines() if line.endswith(SUFFIXES)]
    asked = [git, "cat-file", "--batch-check=%(objectsize) %(rest)"]
    told = subprocess.run(asked, cwd=ROOT, input="\n".join(objects).encode(), capture_output=True, check=True)
    sizes = [int(line.split()[0]) for line in told.stdout.decode().splitlines()]
    return dict(zip(objects, sizes, strict=True))


def test_all_weights_ever_committed_stay_below_20_mb() -> None:
    """Older versions of a file count too: they are in every clone."""
    sizes = sizes_of_history()
    assert any("unet" in path for path in sizes), "the history holds the embedded model"
    assert sum(sizes.values()) < MOST, sizes


def test_every_packaged_lora_is_small() -> None:
    """Each of them, as it lies in the wheel."""
    sizes = {path.name: path.stat().st_size for path in LORAS.glob("*.safetensors")}
    assert sizes
    assert max(sizes.values()) < MOST_OF_A_LORA, sizes
