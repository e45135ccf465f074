"""Folders in diffusers' layout, and the sentences for those that cannot be loaded."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from tests.support.refusals import edit, refused
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
UNET_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def rename(path: Path, renames: dict[str, str], prefix: str = "") -> None:
    """Spell the tensors of a weights file in an older way."""
    spelled = {}
    for name, tensor in load_file(path).items():
        for new, old in renames.items():
            name = name.replace(new, old)  # noqa: PLW2901 - several renames of one name
        spelled[prefix + name] = tensor
    save_file(spelled, path, metadata={"format": "pt"})


def test_the_spelling_of_the_first_published_folders(copy: Path, model: Model) -> None:
    """Stable Diffusion 1.5 as published names its VAE's attention and its text encoder in an older way."""
    old_attention = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    rename(copy / "vae/diffusion_pytorch_model.safetensors", old_attention)
    names = load_file(copy / "text_encoder/model.safetensors")
    if not any(name.startswith("text_model.") for name in names):
        rename(copy / "text_encoder/model.safetensors", {}, prefix="text_model.")
    loaded = load("old", copy, device=CPU, dtype=None)
    encoder, saved = loaded.text_encoders["text_encoder"], model.text_encoders["text_encoder"]
    for ours, theirs in ((loaded.vae, model.vae), (encoder, saved)):
        expected = theirs.state_dict()
        assert all(torch.equal(value, expected[name]) for name, value in ours.state_dict().items())


def test_a_tokenizer_of_vocabulary_and_merges(copy: Path, model: Model) -> None:
    """Folders without tokenizer.json, as the first published ones, read prompts the same way."""
    saved = json.loads((copy / "tokenizer/tokenizer.json").read_text())["model"]
    (copy / "tokenizer/vocab.json").write_text(json.dumps(saved["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in saved["merges"]]
    (copy / "tokenizer/merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    (copy / "tokenizer/tokenizer.json").unlink()
    loaded = load("old", copy, device=CPU, dtype=None)
    prompt = "A red cat, and: a BLUE dog's ümläut 12"
    assert loaded.tokenizers["tokenizer"](prompt).input_ids == model.tokenizers["tokenizer"](prompt).input_ids


def test_no_index(tmp_path: Path, copy: Path) -> None:
    """A folder without an index is no model; what was meant is guessed."""
    refused(tmp_path, "has no model_index.json, so it is no model in diffusers' layout$")
    (tmp_path / "one.safetensors").write_bytes(b"")
    refused(tmp_path, "a single checkpoint is named by its file, such as .*one.safetensors$")
    refused(copy / "unet", "has no model_index.json.* give the folder above it")


def test_a_safety_checker_is_left_alone(copy: Path, model: Model) -> None:
    """Folders list components that drawing needs nothing of; their files are not even opened."""
    edit(
        copy / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        requires_safety_checker=True,
    )
    (copy / "safety_checker").mkdir()
    (copy / "safety_checker" / "model.safetensors").write_bytes(b"junk")
    assert torch.equal(draw(load("safe", copy, device=CPU, dtype=None), task()), draw(model, task()))


@pytest.mark.parametrize("component", ["tokenizer", "text_encoder", "unet", "vae"])
def test_a_missing_component(copy: Path, component: str) -> None:
    """A component that the index names but nobody saved is named."""
    shutil.rmtree(copy / component)
    refused(copy, f"has no folder {component}, which its model_index.json names")


def test_a_component_that_the_index_leaves_out(copy: Path) -> None:
    """An index with a null for a component that is needed."""
    edit(copy / "model_index.json", vae=[None, None])
    refused(copy, "model_index.json names no vae")


def test_a_component_of_another_class(copy: Path) -> None:
    """Another architecture is told by the class that it would need."""
    edit(copy / "model_index.json", unet=["diffusers", "FluxTransformer2DModel"])
    refused(copy, "is a FluxTransformer2DModel; only UNet2DConditionModel is supported")


def test_missing_weights(copy: Path) -> None:
    """A component without its weights is named."""
    (copy / UNET_WEIGHTS).unlink()
    refused(copy, "unet has no weights: neither diffusion_pytorch_model.safetensors nor")


def test_pickled_weights_are_not_read(copy: Path) -> None:
    """Weights that only exist as a pickle are refused with what to do."""
    torch.save(load_file(copy / UNET_WEIGHTS), copy / "unet/diffusion_pytorch_model.bin")
    (copy / UNET_WEIGHTS).unlink()
    refused(copy, r"are pickled \(diffusion_pytorch_model.bin\), .* put diffusion_pytorch_model.safetensors")


def test_truncated_weights(copy: Path) -> None:
    """Half a file is a clear failure, not a model."""
    weights = copy / UNET_WEIGHTS
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    refused(copy, "diffusion_pytorch_model.safetensors is no whole .safetensors file: .*; download it again")


@pytest.mark.parametrize(
    ("file", "key"),
    [(UNET_WEIGHTS, "conv_in.weight"), ("text_encoder/model.safetensors", "final_layer_norm.weight")],
)
def test_weights_that_lack_a_tensor(copy: Path, file: str, key: str) -> None:
    """A tensor that is missing is named; it is never left random."""
    tensors = load_file(copy / file)
    name = next(one for one in tensors if one.endswith(key))
    save_file({k: v for k, v in tensors.items() if k != name}, copy / file, metadata={"format": "pt"})
    refused(copy, f"lacks 1 tensors, .*{key}")


def test_tensors_of_another_shape(copy: Path) -> None:
    """A tensor that does not fit the configuration is named with both shapes."""
    edit(copy / "unet/config.json", in_channels=9)
    refused(copy, r"the unet in .* is of another architecture: conv_in.weight is \[8, 4, 3, 3\], not \[8, 9")


def test_another_pipeline(copy: Path) -> None:
    """A folder of another family is named by its pipeline."""
    edit(copy / "model_index.json", _class_name="FluxPipeline", transformer=["diffusers", "Flux"])
    refused(copy, "is a FluxPipeline; only Stable Diffusion 1, 2 and XL")


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_half_precision_variants(copy: Path, model: Model, variant: str) -> None:
    """A folder that has only `*.fp16.safetensors`, as many repositories, loads; whole precision wins."""
    for file in list(copy.rglob("*.safetensors")):
        tensors = {name: tensor.half() for name, tensor in load_file(file).items()}
        save_file(tensors, file.with_suffix(f".{variant}.safetensors"), metadata={"format": "pt"})
    both = load("both", copy, device=CPU, dtype=None)
    assert torch.equal(both.unet.conv_in.weight, model.unet.conv_in.weight)
    for file in copy.rglob("*.safetensors"):
        if variant not in file.name:
            file.unlink()
    half = load("half", copy, device=CPU, dtype=None)
    for name, weight in half.unet.state_dict().items():
        assert torch.equal(weight, model.unet.state_dict()[name].half().float())


def test_weights_in_parts(copy: Path, model: Model) -> None:
    """Large components come in several files with an index; a part that is missing is named."""
    tensors = load_file(copy / UNET_WEIGHTS)
    (copy / UNET_WEIGHTS).unlink()
    names = sorted(tensors)
    parts = {"diffusion_pytorch_model-00001-of-00002.safetensors": names[::2]}
    parts["diffusion_pytorch_model-00002-of-00002.safetensors"] = names[1::2]
    for file, kept in parts.items():
        save_file({name: tensors[name] for name in kept}, copy / "unet" / file, metadata={"format": "pt"})
    index = {"weight_map": {name: file for file, kept in parts.items() for name in kept}}
    (copy / f"{UNET_WEIGHTS}.index.json").write_text(json.dumps(index))
    loaded = load("parts", copy, device=CPU, dtype=None).unet.state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in model.unet.state_dict().items())
    (copy / "unet" / next(iter(parts))).unlink()
    refused(copy, "lacks diffusion_pytorch_model-00001-of-00002.safetensors, which .*index.json names")


def test_a_broken_scheduler_configuration(copy: Path) -> None:
    """JSON that cannot be read names its file."""
    (copy / "scheduler/scheduler_config.json").write_text("{")
    refused(copy, r"scheduler_config.json cannot be read as JSON")


def test_no_scheduler_configuration(copy: Path) -> None:
    """A missing file names itself."""
    (copy / "scheduler/scheduler_config.json").unlink()
    refused(copy, "the model has no scheduler/scheduler_config.json")


def test_json_that_is_no_object(copy: Path) -> None:
    """A list is not a configuration."""
    (copy / "scheduler/scheduler_config.json").write_text("[]")
    refused(copy, "holds no JSON object")


@pytest.mark.parametrize(
    "file",
    [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "unet/config.json",
        "text_encoder/config.json",
        UNET_WEIGHTS,
        "tokenizer/tokenizer_config.json",
        "tokenizer/merges.txt",
        "sdgrpc.json",
    ],
)
def test_a_pipe_holds_nobody_up(copy: Path, file: str) -> None:
    """Whatever file of a model it stands in for, it is refused at once, by name."""
    (copy / file).unlink(missing_ok=True)
    os.mkfifo(copy / file)
    refused(copy, Path(file).name if file != UNET_WEIGHTS else "has no weights")
