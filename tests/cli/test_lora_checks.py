"""`loras verify` and `loras convert`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from tests.support.assets import LORAS
from tests.support.loras import kohya_file, to_file

MODEL = LORAS.parent / "model"
PACKAGED = {
    "flower": ["locon", "lora"],
    "lcm": ["locon", "lora"],
    "night": ["lokr"],
    "outline": ["dora"],
    "postcard": ["locon", "lora"],
    "sepia": ["locon", "lora"],
    "stripes": ["loha"],
}


def test_every_packaged_file_is_verified(run) -> None:
    """Against its own base: modules and norms, and success; what depends on the weights has no norm."""
    result = run("loras", "verify", LORAS, "--json")
    assert result.exit_code == 0
    rows = {row["file"].removesuffix(".safetensors"): row for row in json.loads(result.output)}
    assert {name: row["algorithms"] for name, row in rows.items()} == PACKAGED
    for name, row in rows.items():
        assert (row["base"], row["unmatched_tensors"], row["refusal"]) == ("embedded", 0, "")
        assert row["module_count"] >= 65
        assert (row["delta_norm"] is None) == (name == "outline")
        assert row["relative_delta_norm"] is None


def test_a_model_gives_the_proportion(run) -> None:
    """With --model every change has a norm, and its ratio to the weights that it changes."""
    rows = json.loads(run("loras", "verify", LORAS, "--model", MODEL, "--json").output)
    assert len(rows) == len(PACKAGED)
    for row in rows:
        assert row["delta_norm"] > 1
        assert 0.01 < row["relative_delta_norm"] < 1


def test_refusals_have_a_row_and_an_exit_code(run, tmp_path: Path) -> None:
    """Whatever is refused stands in the table with its reason; a sound file beside it is judged."""
    shutil.copy(LORAS / "night.safetensors", tmp_path / "night.safetensors")
    to_file(tmp_path / "sub/flux.safetensors", {"lora_unet_double_blocks_0_x.alpha": torch.ones(1)})
    to_file(tmp_path / "odd.safetensors", kohya_file("conv_in"))
    (tmp_path / "old.pt").write_bytes(b"PK\x03\x04 and so on")
    (tmp_path / "cut.safetensors").write_bytes((LORAS / "night.safetensors").read_bytes()[:-9])
    result = run("loras", "verify", tmp_path)
    assert result.exit_code == 1
    rows = {line.split()[0]: line for line in result.output.splitlines()[1:]}
    assert set(rows) == {
        "cut.safetensors",
        "night.safetensors",
        "odd.safetensors",
        "old.pt",
        "sub/flux.safetensors",
    }
    assert "is truncated" in rows["cut.safetensors"]
    assert rows["night.safetensors"].split()[1:5] == ["embedded", "lokr", "65", "0"]
    assert "fits no base" in rows["odd.safetensors"]
    assert "is a PyTorch pickle" in rows["old.pt"]
    assert "sdgrpc loras convert FILE" in rows["old.pt"]
    assert "is for Flux" in rows["sub/flux.safetensors"]


def test_another_base_is_a_refusal(run, tmp_path: Path) -> None:
    """A file that is sound for its own base is refused by a model of another."""
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    pair = {f"{key}.lora_up.weight": torch.ones(640, 1), f"{key}.lora_down.weight": torch.ones(1, 768)}
    to_file(tmp_path / "sd15.safetensors", pair)
    assert run("loras", "verify", tmp_path).exit_code == 0
    result = run("loras", "verify", tmp_path, "--model", MODEL)
    assert result.exit_code == 1
    assert "is for SD1.5 (cross-attention width 768); the loaded model is the embedded model" in result.output


def test_nothing_to_verify(run, tmp_path: Path) -> None:
    """An empty folder is said to be empty; what is no folder is an error."""
    assert run("loras", "verify", tmp_path).output == f"no LoRA files in {tmp_path}\n"
    result = run("loras", "verify", tmp_path / "none")
    assert (result.exit_code, "No such file" in result.stderr) == (1, True)


@pytest.fixture
def pickled(tmp_path: Path) -> Path:
    """A pickle of the form of a LoRA for SD1.5."""
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    path = tmp_path / "old.pt"
    pair = {f"{key}.lora_up.weight": torch.ones(640, 1), f"{key}.lora_down.weight": torch.ones(1, 768)}
    torch.save(pair, path)
    return path


def test_convert(run, pickled: Path, tmp_path: Path) -> None:
    """The new file is named with what it is, stands beside the old one, and can be inspected."""
    made = tmp_path / "old.safetensors"
    assert run("loras", "convert", pickled).output == f"{made}: sd15, lora, 1 modules\n"
    assert json.loads(run("loras", "inspect", made, "--json").output)["refusal"] == ""
    result = run("loras", "convert", pickled)
    assert (result.exit_code, result.stderr) == (1, f"error: {made}: is there already; --force replaces it\n")
    assert run("loras", "convert", pickled, "--force").exit_code == 0
    assert run("loras", "convert", pickled, "--output", tmp_path / "new.safetensors").exit_code == 0
    assert (tmp_path / "new.safetensors").read_bytes() == made.read_bytes()


def test_convert_refuses(run, tmp_path: Path) -> None:
    """One line says why, and nothing is written."""
    torch.save({"a": Path("x")}, tmp_path / "code.ckpt")
    result = run("loras", "convert", tmp_path / "code.ckpt")
    assert result.exit_code == 1
    assert "nothing of it was run" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["code.ckpt"]


def test_convert_of_no_lora_leaves_nothing(run, tmp_path: Path) -> None:
    """A pickle of other weights is told as one, and nothing is left, not even with --force."""
    torch.save({"conv.weight": torch.ones(2, 2)}, tmp_path / "net.pt")
    (tmp_path / "net.safetensors").write_bytes(b"mine")
    result = run("loras", "convert", tmp_path / "net.pt", "--force")
    assert result.exit_code == 1
    assert "holds no LoRA, and nothing was written" in result.stderr
    assert (tmp_path / "net.safetensors").read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.pt", "net.safetensors"]
