"""VAEs in every spelling, and VAEs of their own for models that have none or another."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from safetensors.torch import load_file, save_file
from torch import Tensor

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.checkpoints.vae import open_vae
from sdgrpc.diffusion.model import Model
from sdgrpc.errors import ModelError
from tests.support.original import original_vae, save_original
from tests.support.refusals import edit, rewritten

CPU = torch.device("cpu")
Tensors = dict[str, Tensor]
SPELLINGS: dict[str, dict[str, str]] = {
    "diffusers": {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0", "norm": "group_norm"},
    "diffusers, the norm as it was": {"q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"},
    "diffusers, oldest": {"q": "query", "k": "key", "v": "value", "proj_out": "proj_attn"},
    "original": {},
}


def respelled(tensors: Tensors, spelling: Mapping[str, str], *, matrices: bool) -> Tensors:
    """A VAE's attention under other names, as matrices or as convolutions of one pixel."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(r"(.*mid\.attn_1\.)(\w+)\.(weight|bias)", name)
        if match is None:
            found[name] = tensor
            continue
        flat = tensor[:, :, 0, 0] if matrices and tensor.ndim == 4 else tensor
        found[f"{match[1]}{spelling.get(match[2], match[2])}.{match[3]}"] = flat.contiguous()
    return found


def same(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.fixture(scope="module")
def another() -> AutoencoderKL:
    """A VAE that is no model's own."""
    torch.manual_seed(9)
    return AutoencoderKL(
        block_out_channels=(32, 64),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        scaling_factor=0.5,
    ).eval()


@pytest.mark.parametrize("matrices", [False, True])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_of_its_attention(
    sd15: Path, models: Mapping[tuple[str, bool], Model], spelling: str, matrices: bool
) -> None:
    """Single files are published with each; the tensors are the same to the bit."""
    tensors = respelled(load_file(sd15), SPELLINGS[spelling], matrices=matrices)
    found = load("one", rewritten(sd15, tensors), device=CPU, dtype=None)
    assert same(found.vae, models["sd15", False].vae)


def saved(another: AutoencoderKL, tmp_path: Path) -> dict[str, Path]:
    """That VAE in every shape that it may be given in."""
    another.save_pretrained(tmp_path / "folder")
    shutil.copytree(tmp_path / "folder", tmp_path / "model" / "vae")
    state = another.state_dict()
    original = {
        name.removeprefix("first_stage_model."): tensor.contiguous()
        for name, tensor in original_vae(state, 2)
    }
    files: dict[str, Tensors] = {
        "original": original,
        "original, spelled as diffusers does": respelled(original, SPELLINGS["diffusers"], matrices=True),
        "in a checkpoint": {f"first_stage_model.{name}": one for name, one in original.items()}
        | {"model.diffusion_model.out.2.weight": torch.ones(1)},
        "diffusers": dict(state),
        "diffusers, with a prefix": {f"vae.{name}": one.clone() for name, one in state.items()},
        "with training's rest": original | {"loss.logvar": torch.ones(()), "model_ema.decay": torch.ones(())},
    }
    places = {"folder": tmp_path / "folder", "model's folder": tmp_path / "model"}
    for number, (name, tensors) in enumerate(files.items()):
        places[name] = tmp_path / f"{number}.safetensors"
        save_file({key: one.contiguous() for key, one in tensors.items()}, places[name])
    return places


def test_a_vae_of_its_own_in_every_shape(
    another: AutoencoderKL,
    models: Mapping[tuple[str, bool], Model],
    folders: Mapping[tuple[str, bool], Path],
    tmp_path: Path,
) -> None:
    """A folder or a file replaces the VAE of a folder; all else stays as it is."""
    expected = models["sd15", False]
    for name, place in saved(another, tmp_path).items():
        found = load("one", folders["sd15", False], device=CPU, dtype=None, vae=place)
        assert same(found.vae, another), name
        assert same(found.unet, expected.unet), name
        # A single file says no scale: its model's does.
        assert found.vae.config.scaling_factor == (0.5 if "folder" in name else 0.18215), name


@pytest.mark.parametrize("base", ["sd15", "sdxl"])
def test_files_without_a_vae_can_be_served(
    another: AutoencoderKL,
    models: Mapping[tuple[str, bool], Model],
    folders: Mapping[tuple[str, bool], Path],
    tmp_path: Path,
    base: str,
) -> None:
    """With one given, in its own base's scale; without one the refusal says how."""
    path = save_original(models[base, False], tmp_path / "one.safetensors")
    bare = rewritten(
        path, {k: v for k, v in load_file(path).items() if not k.startswith("first_stage_model.")}
    )
    vocabulary = folders[base, False] / "tokenizer"
    with pytest.raises(ModelError, match=r"holds no VAE; .* give it one with --vae NAME=PATH"):
        load("one", bare, device=CPU, dtype=None, tokenizer=vocabulary)
    place = tmp_path / "vae.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in another.state_dict().items()}, place)
    found = load("one", bare, device=CPU, dtype=None, tokenizer=vocabulary, vae=place)
    assert same(found.vae, another)
    assert same(found.unet, models[base, False].unet)
    assert found.vae.config.scaling_factor == {"sd15": 0.18215, "sdxl": 0.13025}[base]


def test_a_folder_without_a_vae(another: AutoencoderKL, copy: Path, tmp_path: Path) -> None:
    """It needs none where one is given, and its index may name none."""
    another.save_pretrained(tmp_path / "vae")
    shutil.rmtree(copy / "vae")
    edit(copy / "model_index.json", vae=[None, None])
    with pytest.raises(ModelError, match="names no vae"):
        load("one", copy, device=CPU, dtype=None)
    assert same(load("one", copy, device=CPU, dtype=None, vae=tmp_path / "vae").vae, another)


def broken_kind(path: Path) -> Path:
    save_file({"decoder.1.weight": torch.ones(1), "encoder.0.weight": torch.ones(1)}, path)
    return path


def cut(path: Path) -> Path:
    path.write_bytes(b"\x10")
    return path


def pickled(path: Path) -> Path:
    torch.save({}, path)
    return path


def half(path: Path) -> Path:
    save_file({"encoder.down.0.block.0.conv2.weight": torch.ones(32, 32, 3, 3)}, path)
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path, "is no folder or file"),
        (lambda path: path.parent, "is no VAE's folder"),
        (broken_kind, r"holds no VAE of Stable Diffusion 1, 2 or XL"),
        (half, r"holds no VAE of Stable Diffusion 1, 2 or XL"),
        (cut, "is no whole .safetensors file"),
        (pickled, "is pickled"),
    ],
)
def test_what_is_no_vae(tmp_path: Path, make: Callable[[Path], Path], message: str) -> None:
    """Each is refused with a sentence that names it."""
    place = make(tmp_path / "vae.safetensors")
    with pytest.raises(ModelError, match=message) as caught:
        open_vae(place, scaling_factor=1.0)
    assert str(place) in caught.value.message


def test_a_vae_of_another_kind(tmp_path: Path, another: AutoencoderKL) -> None:
    """Sixteen latent channels, as Stable Diffusion 3 has, or another class."""
    another.save_pretrained(tmp_path)
    edit(tmp_path / "config.json", _class_name="AsymmetricAutoencoderKL")
    with pytest.raises(ModelError, match="is a AsymmetricAutoencoderKL; only AutoencoderKL"):
        open_vae(tmp_path, scaling_factor=1.0)


def test_other_latents_are_refused(folders: Mapping[tuple[str, bool], Path], tmp_path: Path) -> None:
    """The UNet's channels tell."""
    AutoencoderKL(latent_channels=16, block_out_channels=(32,), norm_num_groups=32).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"takes 4 channels; 16 \(ordinary\) or 33"):
        load("one", folders["sd15", False], device=CPU, dtype=None, vae=tmp_path)
