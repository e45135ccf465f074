"""`loras list` and `loras inspect`."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.support.loras import require_shared

MODULE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
KEY = f"lora_unet_{MODULE.replace('.', '_')}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A LoRA for SD1.5 in a sub-folder, one for Flux, and a pickle."""
    path = tmp_path / "loras"
    (path / "styles").mkdir(parents=True)
    pair = {
        f"{KEY}.lora_down.weight": torch.ones(4, 320),
        f"{KEY}.lora_up.weight": torch.ones(320, 4),
        f"{KEY}.alpha": torch.tensor(2.0),
    }
    save_file(pair, path / "styles/ink.safetensors", {"modelspec.trigger_phrase": "inkwash"})
    flux = {"lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(4, 8)}
    save_file(flux, path / "flux.safetensors")
    (path / "old.pt").write_bytes(b"PK\x03\x04 and so on")
    return path


def test_list_says_what_each_file_is_for(run, folder: Path) -> None:
    """Names are as requests use them, with base, algorithm and trigger words, or the reason for refusing."""
    result = run("loras", "list", "--lora-dir", folder)
    assert result.exit_code == 0
    header, *rows = [line.split() for line in result.output.splitlines()]
    assert header[:5] == ["name", "MiB", "base", "algorithms", "rank"]
    assert [row[0] for row in rows] == ["flux", "styles/ink"]
    assert "refused: is for Flux, not for Stable Diffusion" in " ".join(rows[0])
    assert rows[1][1:] == ["0.0", "sd15", "lora", "4", "inkwash"]


def test_list_says_what_fits_a_model(run, folder: Path) -> None:
    """With a model each file says whether it fits, and one for another base why not."""
    packaged = files("sdgrpc") / "assets/tiny/model"
    lines = run("loras", "list", "--lora-dir", folder, "--model", packaged).output.splitlines()
    assert lines[0].split()[5] == "fits"
    assert lines[2].split()[1:6] == ["0.0", "sd15", "lora", "4", "no"]
    assert "refused: is for SD1.5" in lines[2]
    rows = [line.split() for line in run("loras", "list", "--model", packaged).output.splitlines()[1:]]
    assert {row[0] for row in rows if "yes" in row} == {row[0] for row in rows}
    result = run("loras", "list", "--lora-dir", folder, "--model", folder)
    assert (result.exit_code, "holds no model in diffusers' layout" in result.stderr) == (1, True)


def test_list_of_names_only(run, folder: Path) -> None:
    """Names alone come one to a line, for scripts."""
    assert run("loras", "list", "--names", "--lora-dir", folder).output == "flux\nstyles/ink\n"


def test_list_of_nothing(run, tmp_path: Path) -> None:
    """An empty folder is said to be empty, one that is not there is an error."""
    (tmp_path / "empty").mkdir()
    assert run("loras", "list", "--lora-dir", "empty").output == "no LoRA files in empty\n"
    result = run("loras", "list", "--lora-dir", "none")
    assert (result.exit_code, result.stderr) == (1, "error: lora_dir: none is not a folder\n")


def test_inspect_json(run, folder: Path) -> None:
    """The JSON has every documented key, and the norm of the change is that of alpha / rank * up @ down."""
    path = folder / "styles/ink.safetensors"
    result = run("loras", "inspect", path, "--json")
    assert result.exit_code == 0
    assert json.loads(result.output) == {
        "file": str(path),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "base": "sd15",
        "algorithms": ["lora"],
        "tensor_count": 3,
        "module_count": 1,
        "unmatched_tensors": 0,
        "unmatched_examples": [],
        "fits": True,
        "refusal": "",
        "metadata": {"modelspec.trigger_phrase": "inkwash"},
        "modules": [
            {
                "component": "unet",
                "path": MODULE,
                "algorithm": "lora",
                "rank": 4,
                "alpha": 2.0,
                "delta_norm": pytest.approx(2 / 4 * 4 * 320),
            }
        ],
        "warnings": [],
        "trigger_words": ["inkwash"],
        "preferred_strength": None,
        "air": "",
        "base_model": "",
        "picture": "",
    }


def test_inspect_for_people(run, folder: Path) -> None:
    """Without --json a few lines say the same in short."""
    output = run("loras", "inspect", folder / "styles/ink.safetensors").output
    assert "1 modules, rank 4, norm of the change 640" in output
    assert "inkwash" in output


def test_metadata_cannot_steer_the_terminal(run, tmp_path: Path) -> None:
    """Escape sequences in a file's metadata are not passed on."""
    save_file(
        {"lora_unet_x.alpha": torch.ones(1)}, tmp_path / "evil.safetensors", {"ss\x1b[2J": "\x1b]0;owned\x07"}
    )
    output = run("loras", "inspect", "evil.safetensors").output
    assert "owned" in output
    assert "\x1b" not in output
    assert "\x07" not in output


@pytest.mark.parametrize(
    ("name", "reason"), [("flux.safetensors", "is for Flux"), ("old.pt", "is a PyTorch pickle")]
)
def test_refused_files_exit_with_1(run, folder: Path, name: str, reason: str) -> None:
    """A file that would be refused is described as far as it goes, with the reason and exit status 1."""
    result = run("loras", "inspect", folder / name, "--json")
    assert result.exit_code == 1
    assert reason in result.stderr
    assert reason in json.loads(result.stdout)["refusal"]


def test_missing_files_are_named(run) -> None:
    """A file that is not there is an error of one line."""
    result = run("loras", "inspect", "none.safetensors")
    assert result.exit_code == 1
    assert re.fullmatch(r"error: \S*none\.safetensors: No such file or directory\n", result.stderr)


def test_packaged_loras_are_for_the_embedded_model(run) -> None:
    """Without a folder the packaged LoRAs are listed."""
    rows = [line.split() for line in run("loras", "list").output.splitlines()[1:]]
    assert "postcard" in [row[0] for row in rows]
    assert {row[2] for row in rows} == {"embedded"}


def test_real_file(run) -> None:
    """A published file is read with every tensor placed."""
    path = require_shared("loras") / "catundchat_pytorch_lora_weights.safetensors"
    report = json.loads(run("loras", "inspect", path, "--json").output)
    assert (report["base"], len(report["modules"]), report["unmatched_tensors"]) == ("sd15", 128, 0)


def test_list_as_json(run, folder: Path) -> None:
    """A record for each file, in the words of ListLoras; what is refused says why."""
    found = {
        one["name"]: one for one in json.loads(run("loras", "list", "--lora-dir", folder, "--json").stdout)
    }
    ink = found["styles/ink"]
    assert (ink["base"], ink["algorithms"], ink["rank_min"], ink["rank_max"]) == ("sd15", ["lora"], 4, 4)
    assert (ink["fits"], ink["refusal"], ink["trigger_words"]) == (True, "", ["inkwash"])
    assert ink["size_bytes"] == (folder / "styles/ink.safetensors").stat().st_size
    assert "is for Flux" in found["flux"]["refusal"]


def test_what_lies_beside_a_file(run, folder: Path) -> None:
    """Its words come first; strength, id and picture are told, and what is wrong is a warning."""
    told = {"activation text": "ink wash, paper", "preferred weight": 0.7}
    (folder / "styles/ink.json").write_text(json.dumps(told), "utf-8")
    (folder / "styles/ink.civitai.info").write_text('{"id": 2, "modelId": 1, "baseModel": "SD 1.5"}', "utf-8")
    (folder / "styles/ink.preview.png").write_bytes(b"a picture")
    (folder / "flux.json").write_bytes(b"{")
    header, _, ink = [line.split() for line in run("loras", "list", "--lora-dir", folder).output.splitlines()]
    assert header[5] == "strength"
    assert ink[1:] == ["0.0", "sd15", "lora", "4", "0.7", "ink", "wash,", "paper,", "inkwash"]
    records = json.loads(run("loras", "list", "--lora-dir", folder, "--json").stdout)
    found = next(one for one in records if one["name"] == "styles/ink")
    assert found["trigger_words"] == ["ink wash", "paper", "inkwash"]
    assert (found["preferred_strength"], found["has_thumbnail"]) == (0.7, True)
    assert (found["air"], found["base_model"]) == ("urn:air:sd1:lora:civitai:1@2", "SD 1.5")
    output = run("loras", "inspect", folder / "styles/ink.safetensors").output
    for line in ("0.7 is preferred", "urn:air:sd1:lora:civitai:1@2", "ink.preview.png", "ink wash, paper"):
        assert line in output
    warned = json.loads(run("loras", "inspect", folder / "flux.safetensors", "--json").stdout)
    assert warned["warnings"] == ["flux.json is ignored: it is no JSON"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "none.safetensors"],
        ["verify", "none"],
        ["verify", ".", "--model", "none"],
        ["convert", "none.pt"],
        ["list", "--model", "none"],
        ["list", "--lora-dir", "none"],
    ],
    ids=" ".join,
)
def test_paths_are_checked_before_torch_comes(tmp_path: Path, arguments: list[str]) -> None:
    """A slip of the pen is told at once, not after seconds of importing."""
    code = (
        "import sys\nfrom sdgrpc.cli import build_app\n"
        "try: build_app()(['loras', *sys.argv[1:]])\n"
        "except SystemExit as end: print(end.code, 'torch' in sys.modules)"
    )
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1 False\n", done.stderr
    assert "none" in done.stderr
