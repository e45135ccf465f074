"""The loading benchmark, tried with a tiny model; its numbers are not judged here."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.loading import CONTENDERS, measure, medians, table
from sdgrpc.diffusion.checkpoints.loading import load
from tests.support.original import save_original
from tests.support.published import save_published


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_both_sides_load(tmp_path: Path) -> None:
    """A folder by both and a file by us: the same parameters in as many bytes."""
    folder = save_published(tmp_path / "folder", "sd15", inpainting=False)
    save_original(load("tiny", folder, device=torch.device("cpu"), dtype=None), tmp_path / "one.safetensors")
    found = [
        measure(side, tmp_path / source, torch.float32, folder / "tokenizer") for side, source in CONTENDERS
    ]
    assert len({run["size"] for run in found}) == 1
    assert all(0 < run["load"] <= run["touched"] for run in found)


def test_the_table() -> None:
    """A line for each pair of dtypes, times and peaks beside diffusers'."""
    measured = ((1.0, 1.0), (9.0, 1.0), (3.0, 1.5))
    runs = [{"touched": seconds, "load": seconds / 2, "peak": peak} for seconds, peak in measured]
    middle = {f"float16 bfloat16 {side} {source}": medians(runs) for side, source in CONTENDERS}
    middle["float16 bfloat16 diffusers folder"] = {"touched": 6.0, "load": 4.0, "peak": 1.5}
    lines = list(table(middle))
    seconds = "3.00 (1.50) | 3.00 (1.50) | 6.00 (4.00)"
    assert lines[2:] == [f"| float16 | bfloat16 | {seconds} | 0.50, 0.50 | 1.00, 1.00, 1.50 |"]
