"""What is inside a file, without any model."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdgrpc.lora.describing.inspect import inspect
from tests.support.files import BytesRead, sparse_checkpoint
from tests.support.loras import to_file

TO_K = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"


def sd15_file(path: Path, **extra: torch.Tensor) -> Path:
    torch.manual_seed(0)
    flat = "lora_unet_" + TO_K.replace(".", "_")
    tensors = {
        f"{flat}.lora_up.weight": torch.randn(320, 4),
        f"{flat}.lora_down.weight": torch.randn(4, 768),
        f"{flat}.alpha": torch.tensor(2.0),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": torch.randn(3072, 1),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": torch.randn(1, 768),
        "lora_unet_conv_in.lora_up.weight": torch.randn(320, 2, 1, 1),
        "lora_unet_conv_in.lora_down.weight": torch.randn(2, 4, 3, 3),
    }
    return to_file(path, tensors | extra, {"ss_output_name": "x", "ssmd_cover_images": "base64"})


def test_a_file_is_described(tmp_path: Path) -> None:
    """Every field, with the norm of each change as the full matrix has it."""
    path = sd15_file(tmp_path / "a.safetensors", stray=torch.ones(1))
    found = inspect(path)
    assert found.file == str(path)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.base == "sd15"
    assert found.algorithms == ("locon", "lora")
    assert found.tensors == 8
    assert found.unmatched == ("stray",)
    assert found.refusal == ""
    assert found.metadata == {"ss_output_name": "x"}
    by_module = {(module.component, module.path): module for module in found.modules}
    assert len(by_module) == 3
    torch.manual_seed(0)
    delta = torch.randn(320, 4).double() @ torch.randn(4, 768).double() * (2 / 4)
    to_k = by_module["unet", TO_K]
    assert (to_k.algorithm, to_k.rank, to_k.alpha) == ("lora", 4, 2.0)
    assert to_k.delta_norm == pytest.approx(torch.linalg.matrix_norm(delta).item(), rel=1e-9)
    assert by_module["text_encoder", "encoder.layers.0.mlp.fc1"].alpha is None
    assert by_module["unet", "conv_in"].algorithm == "locon"


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_unet_double_blocks_0_img_mod_lin.lora_down.weight", "Flux"),
        ("something_else", "no LoRA tensors"),
        ("lora_unet_unknown.lora_down.weight", "without its partner (up)"),
    ],
)
def test_refusals_have_their_reason(tmp_path: Path, key: str, words: str) -> None:
    """What is refused says why, and still what it is called and how many tensors it has."""
    found = inspect(to_file(tmp_path / "a.safetensors", {key: torch.ones(2, 2)}))
    assert words in found.refusal
    assert (found.base, found.tensors, found.modules) == ("unknown", 1, ())
    assert found.sha256 == ""  # no data was read


def test_a_file_for_no_base_is_refused(tmp_path: Path) -> None:
    """LoRA tensors whose modules no base has."""
    tensors = {
        "lora_unet_x.lora_up.weight": torch.ones(2, 1),
        "lora_unet_x.lora_down.weight": torch.ones(1, 2),
    }
    found = inspect(to_file(tmp_path / "a.safetensors", tensors))
    assert "fits no base that is known" in found.refusal
    assert found.algorithms == ("lora",)


def test_a_wrong_shape_is_refused(tmp_path: Path) -> None:
    """A module of the right name and the wrong size, in a file that fits otherwise."""
    wrong = {
        "lora_unet_conv_out.lora_up.weight": torch.ones(5, 1, 1, 1),
        "lora_unet_conv_out.lora_down.weight": torch.ones(1, 320, 3, 3),
    }
    found = inspect(sd15_file(tmp_path / "a.safetensors", **wrong))
    assert found.base == "sd15"
    assert "conv_out has the shape [4, 320, 3, 3]" in found.refusal


def test_pickles_are_refused(tmp_path: Path) -> None:
    """By their first bytes."""
    torch.save({"a": torch.ones(1)}, tmp_path / "a.pt")
    found = inspect(tmp_path / "a.pt")
    assert "pickle" in found.refusal
    assert (found.sha256, found.tensors) == ("", 0)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The caller is told as Python tells it."""
    with pytest.raises(FileNotFoundError):
        inspect(tmp_path / "nothing.safetensors")


def test_a_change_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """Factors that are finite but whose product is not, in the float32 that it would be fused with."""
    huge = {
        "lora_unet_conv_out.lora_up.weight": torch.full((4, 1, 1, 1), 1e38),
        "lora_unet_conv_out.lora_down.weight": torch.full((1, 320, 3, 3), 1e38),
    }
    assert "too large for a number" in inspect(sd15_file(tmp_path / "a.safetensors", **huge)).refusal


def test_a_checkpoint_is_refused_by_its_header(tmp_path: Path, bytes_read: BytesRead) -> None:
    """Of four gigabytes only the header is read."""
    path = sparse_checkpoint(tmp_path / "whole.safetensors")
    found = inspect(path)
    assert "is a full checkpoint" in found.refusal
    assert (found.tensors, found.sha256, found.metadata) == (2, "", {"format": "pt"})
    assert 0 < bytes_read.of(path) < 1000


def test_a_link_may_be_inspected(tmp_path: Path) -> None:
    """Whoever names a link on the command line means what it points to."""
    path = sd15_file(tmp_path / "a.safetensors")
    link = tmp_path / "b.safetensors"
    link.symlink_to(path)
    assert inspect(link) == replace(inspect(path), file=str(link))
