"""Single checkpoints in the original layout draw what the same model's folder draws."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import init_empty_weights
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.original import Layout
from sdgrpc.domain import Scheduler, TaskKind
from sdgrpc.errors import ModelError
from tests.support.original import STATED, original_unet, save_original
from tests.support.published import save_published
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
KINDS = [(base, nine) for base in ("sd15", "sd2", "sd2-v", "sdxl") for nine in (False, True)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, bool], Path]:
    """A folder of each base, ordinary and inpainting."""
    root = tmp_path_factory.mktemp("published")
    return {
        (base, nine): save_published(root / f"{base}-{nine}", base, inpainting=nine) for base, nine in KINDS
    }


@pytest.fixture(scope="module")
def models(folders: dict[tuple[str, bool], Path]) -> dict[tuple[str, bool], Model]:
    return {key: load("folder", folder, device=CPU, dtype=None) for key, folder in folders.items()}


@pytest.fixture
def sd15(
    models: dict[tuple[str, bool], Model], folders: dict[tuple[str, bool], Path], tmp_path: Path
) -> Path:
    """An SD1 file with a vocabulary beside it."""
    (tmp_path / "tokenizer").symlink_to(folders["sd15", False] / "tokenizer")
    return save_original(models["sd15", False], tmp_path / "one.safetensors")


@pytest.mark.parametrize(("base", "nine"), KINDS)
def test_both_layouts_draw_the_same(
    models: dict[tuple[str, bool], Model],
    folders: dict[tuple[str, bool], Path],
    tmp_path: Path,
    base: str,
    nine: bool,
) -> None:
    """Every base and its inpainting variant, to the bit, with the facts of its folder."""
    expected = models[base, nine]
    path = save_original(expected, tmp_path / "one.safetensors", STATED.get(base))
    found = load("file", path, device=CPU, dtype=None, tokenizer=folders[base, nine] / "tokenizer")
    assert (found.info.is_inpainting, set(found.text_encoders)) == (nine, set(expected.text_encoders))
    asked = task(
        TaskKind.INPAINT if nine else TaskKind.GENERATE, scheduler=Scheduler.EULER, negative_prompt=""
    )
    assert torch.equal(draw(found, asked), draw(expected, asked))
    assert found.vae.config.scaling_factor == expected.vae.config.scaling_factor
    facts = ("scheduler", "prediction_type", "base", "text_encoder_layers")
    assert [getattr(found.info, fact) for fact in facts] == [getattr(expected.info, fact) for fact in facts]


PUBLISHED = {
    "sd15": ((320, 640, 1280, 1280), 2, (1, 1, 1, 1), 8, 768, False),
    "sd2": ((320, 640, 1280, 1280), 2, (1, 1, 1, 1), (5, 10, 20, 20), 1024, True),
    "sdxl": ((320, 640, 1280), 2, (1, 2, 10), (5, 10, 20), 2048, True),
}


@pytest.mark.parametrize("base", PUBLISHED)
def test_the_published_configurations(base: str) -> None:
    """From the full-size UNets' names and shapes follow the configurations that they were published with."""
    channels, layers, depths, heads, attended, linear = PUBLISHED[base]
    config: dict[str, Any] = {
        "in_channels": 4,
        "out_channels": 4,
        "layers_per_block": layers,
        "block_out_channels": list(channels),
        "transformer_layers_per_block": list(depths),
        "attention_head_dim": heads if isinstance(heads, int) else list(heads),
        "cross_attention_dim": attended,
        "use_linear_projection": linear,
    }
    kinds = ["CrossAttnDownBlock2D"] * len(channels)
    kinds[0 if base == "sdxl" else -1] = "DownBlock2D"
    config["down_block_types"] = kinds
    config["up_block_types"] = [kind.replace("Down", "Up") for kind in reversed(kinds)]
    if base == "sdxl":
        config |= {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    with init_empty_weights():
        unet = UNet2DConditionModel(**config)
    shapes = {name: tuple(one.shape) for name, one in original_unet(unet.state_dict(), layers)}
    shapes["conditioner.embedders.1.model.text_projection"] = (1280, 1280)
    found = Layout(shapes).unet(base)
    assert found.pop("sample_size") == (128 if base == "sdxl" else 64)
    assert found == config


def test_half_precision(sd15: Path) -> None:
    """The networks are in the dtype asked for, the VAE in float32."""
    model = load("half", sd15, device=CPU, dtype=torch.bfloat16)
    assert {one.dtype for one in model.unet.state_dict().values()} == {torch.bfloat16}
    assert {one.dtype for one in model.vae.state_dict().values()} == {torch.float32}
    assert torch.isfinite(draw(model, task())).all()


@pytest.mark.parametrize(
    ("metadata", "card", "extra", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, None, {}, "v_prediction"),
        ({"ss_v_parameterization": "True"}, None, {}, "v_prediction"),
        ({"ss_v_parameterization": "False"}, None, {}, "epsilon"),
        (None, {"prediction_type": "v_prediction"}, {}, "v_prediction"),
        ({"modelspec.prediction_type": "v"}, {"prediction_type": "epsilon"}, {}, "epsilon"),
        (None, None, {"v_pred": torch.zeros(0)}, "v_prediction"),
    ],
)
def test_what_stable_diffusion_2_predicts(
    models: dict[tuple[str, bool], Model],
    folders: dict[tuple[str, bool], Path],
    tmp_path: Path,
    metadata: dict[str, str] | None,
    card: dict[str, str] | None,
    extra: dict[str, torch.Tensor],
    expected: str,
) -> None:
    """The file's metadata or marker says it, the card overrides it; v models are of 768 pixels."""
    path = save_original(models["sd2", False], tmp_path / "two.safetensors", metadata, **extra)
    if card:
        (tmp_path / "two.sdgrpc.json").write_text(json.dumps(card))
    vocabulary = folders["sd2", False] / "tokenizer"
    model = load("two", path, device=CPU, dtype=None, tokenizer=vocabulary)
    assert model.info.prediction_type == model.scheduler_config["prediction_type"] == expected
    assert model.unet.config.sample_size == (96 if expected == "v_prediction" else 64)


def test_a_zero_terminal_snr_marker(
    models: dict[tuple[str, bool], Model], folders: dict[tuple[str, bool], Path], tmp_path: Path
) -> None:
    """Files marked `v_pred` and `ztsnr` get the schedule that they were trained with."""
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    path = save_original(models["sdxl", False], tmp_path / "v.safetensors", **marks)
    model = load("v", path, device=CPU, dtype=None, tokenizer=folders["sdxl", False] / "tokenizer")
    config = model.scheduler_config
    assert (config["prediction_type"], config["timestep_spacing"]) == ("v_prediction", "trailing")
    assert config["rescale_betas_zero_snr"] is True
    assert torch.isfinite(draw(model, task(scheduler=Scheduler.EULER))).all()


def refused(path: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load("broken", path, device=CPU, dtype=None)


def test_an_undecidable_stable_diffusion_2(models: dict[tuple[str, bool], Model], tmp_path: Path) -> None:
    """The sentence says what to write where."""
    path = save_original(models["sd2", False], tmp_path / "two.safetensors")
    refused(path, r'"prediction_type": "v_prediction".* to two.sdgrpc.json beside it')


def test_no_vocabulary(sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a vocabulary anywhere the sentence says where to put one."""
    (sd15.parent / "tokenizer").unlink()
    monkeypatch.setattr("sdgrpc.diffusion.vocabulary.CACHED", (("nobody/has-this", ""),))
    refused(sd15, r"needs CLIP's vocabulary.*tokenizer")
    with pytest.raises(ModelError, match="holds no CLIP vocabulary"):
        load("broken", sd15, device=CPU, dtype=None, tokenizer=tmp_path)


def test_a_vocabulary_from_the_hubs_cache(
    sd15: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What other tools have fetched is found without a network."""
    beside = (sd15.parent / "tokenizer").resolve()
    (sd15.parent / "tokenizer").unlink()
    repository = tmp_path / "hub" / "models--openai--clip-vit-large-patch14"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / ("0" * 40)).symlink_to(beside)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    model = load("cached", sd15, device=CPU, dtype=None)
    assert len(model.tokenizers["tokenizer"]) == model.text_encoders["text_encoder"].config.vocab_size


def test_another_vocabulary(sd15: Path, tmp_path: Path, folders: dict[tuple[str, bool], Path]) -> None:
    """A vocabulary of another size is refused."""
    copy = tmp_path / "other"
    copy.mkdir()
    for file in (folders["sd15", False] / "tokenizer").iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    content = json.loads((copy / "tokenizer.json").read_text())
    content["added_tokens"].append({**content["added_tokens"][0], "id": 9999, "content": "<extra>"})
    (copy / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"has \d+ tokens; .*one.safetensors has"):
        load("broken", sd15, device=CPU, dtype=None, tokenizer=copy)


@pytest.mark.parametrize("name", ["one.ckpt", "one.pt", "one.bin", "renamed.safetensors"])
def test_pickles_are_refused(tmp_path: Path, name: str) -> None:
    """By their suffix and by what is inside, never by opening them."""
    path = tmp_path / name
    path.write_bytes(pickle.dumps({"state_dict": {}}))
    refused(path, "is a pickled checkpoint")
    torch.save({}, path)
    refused(path, "is a pickled checkpoint")


def test_a_truncated_file(sd15: Path) -> None:
    """Half a file is no model."""
    sd15.write_bytes(sd15.read_bytes()[: sd15.stat().st_size // 2])
    refused(sd15, "is no whole .safetensors file")


@pytest.mark.parametrize(
    ("drop", "message"),
    [
        ("first_stage_model.", "holds no VAE"),
        ("cond_stage_model.", "is a checkpoint without a text encoder"),
        ("model.diffusion_model.out.2.weight", "the UNet of .* is incomplete or of another architecture"),
        (
            "model.diffusion_model.time_embed.0.bias",
            "the UNet of .* lacks 1 tensors, time_embedding.linear_1.b",
        ),
        ("cond_stage_model.transformer.text_model.final_layer_norm.bias", "the text encoder of .* lacks 1"),
        ("first_stage_model.decoder.conv_out.bias", "the VAE of .* lacks 1 tensors, decoder.conv_out.bias"),
    ],
)
def test_what_is_missing_is_named(sd15: Path, drop: str, message: str) -> None:
    """A file without a component or a tensor is never filled up with noise."""
    kept = {name: tensor for name, tensor in load_file(sd15).items() if not name.startswith(drop)}
    sd15.unlink()
    save_file(kept, sd15)
    refused(sd15, message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_unet_down.lora_up.weight", "is a LoRA; put it in a LoRA folder"),
        ("double_blocks.0.img_mod.lin.bias", "is a Flux checkpoint"),
        ("model.diffusion_model.joint_blocks.0.x", "is an SD3 checkpoint"),
        ("conditioner.embedders.0.model.ln_final.bias", "is the SDXL refiner"),
        ("anything", "is no checkpoint that is known here"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, message: str) -> None:
    """A file that is no such checkpoint is told what it seems to be."""
    path = tmp_path / "other.safetensors"
    save_file({name: torch.zeros(1)}, path)
    refused(path, message)


def test_another_unet_is_refused(sd15: Path) -> None:
    """Tensors beyond the architecture are a sign of another one."""
    tensors = load_file(sd15)
    tensors["model.diffusion_model.input_blocks.1.0.more.weight"] = torch.zeros(1)
    sd15.unlink()
    save_file(tensors, sd15)
    refused(sd15, "the UNet of .* has tensors of another architecture: .*more.weight")
