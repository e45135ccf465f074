"""A folder's files judged, a row for each."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from sdgrpc.lora.describing.verify import Row, verify
from tests.support.assets import LORAS
from tests.support.files import BytesRead, sparse_checkpoint
from tests.support.loras import to_file


def test_a_checkpoint_is_refused_by_its_header(tmp_path: Path, bytes_read: BytesRead) -> None:
    """Four gigabytes that are no LoRA cost a header; a sound file beside it is read whole."""
    path = sparse_checkpoint(tmp_path / "a.safetensors")
    sound = Path(shutil.copy(LORAS / "sepia.safetensors", tmp_path))
    refused, row = verify(tmp_path)
    assert "is a full checkpoint" in refused.refusal
    assert 0 < bytes_read.of(path) < 1000
    assert (row.refusal, row.modules) == ("", 65)
    assert bytes_read.of(sound) > sound.stat().st_size


def test_what_no_base_takes_is_not_read(tmp_path: Path, bytes_read: BytesRead) -> None:
    """Of a file whose modules fit nothing, and of one with a wrong shape, only the header is read."""
    up, down = torch.ones(5000, 50), torch.ones(50, 5000)
    path = to_file(
        tmp_path / "none.safetensors",
        {"lora_unet_x.lora_up.weight": up, "lora_unet_x.lora_down.weight": down},
    )
    (row,) = verify(tmp_path)
    assert "fits no base that is known" in row.refusal
    assert row.algorithms == ("lora",)
    assert bytes_read.of(path) < 1000


def test_numbers_that_are_none_are_found(tmp_path: Path) -> None:
    """What the header cannot tell is told from the data, and the row says what the file is for."""
    tensors = {
        "lora_unet_conv_out.lora_up.weight": torch.full((4, 1, 1, 1), float("nan")),
        "lora_unet_conv_out.lora_down.weight": torch.ones(1, 320, 3, 3),
    }
    to_file(tmp_path / "nan.safetensors", tensors)
    (row,) = verify(tmp_path)
    assert "holds NaN or infinity" in row.refusal
    assert isinstance(row, Row)
    assert row.base == "sd15"
