"""Single checkpoints in the original layout draw what the same model's folder draws."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import Scheduler, TaskKind
from tests.support.original import STATED, save_original
from tests.support.published import ARCHITECTURES
from tests.support.refusals import refused, rewritten
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
KINDS = [(architecture, nine) for architecture in ARCHITECTURES for nine in (False, True)]


@pytest.mark.parametrize(("base", "nine"), KINDS)
def test_both_layouts_draw_the_same(
    models: Mapping[tuple[str, bool], Model],
    folders: Mapping[tuple[str, bool], Path],
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


def test_half_precision(sd15: Path) -> None:
    """The networks are in the dtype asked for, the VAE too where it is bfloat16."""
    model = load("half", sd15, device=CPU, dtype=torch.bfloat16)
    for network in (model.unet, model.vae):
        assert {one.dtype for one in network.state_dict().values()} == {torch.bfloat16}
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
    models: Mapping[tuple[str, bool], Model],
    folders: Mapping[tuple[str, bool], Path],
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
    models: Mapping[tuple[str, bool], Model], folders: Mapping[tuple[str, bool], Path], tmp_path: Path
) -> None:
    """Files marked `v_pred` and `ztsnr` get the schedule that they were trained with."""
    marks = {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    path = save_original(models["sdxl", False], tmp_path / "v.safetensors", **marks)
    model = load("v", path, device=CPU, dtype=None, tokenizer=folders["sdxl", False] / "tokenizer")
    config = model.scheduler_config
    assert (config["prediction_type"], config["timestep_spacing"]) == ("v_prediction", "trailing")
    assert config["rescale_betas_zero_snr"] is True
    assert torch.isfinite(draw(model, task(scheduler=Scheduler.EULER))).all()


def test_an_undecidable_stable_diffusion_2(models: Mapping[tuple[str, bool], Model], tmp_path: Path) -> None:
    """The sentence says what to write where."""
    path = save_original(models["sd2", False], tmp_path / "two.safetensors")
    refused(path, r'"prediction_type": "v_prediction".* to two.sdgrpc.json beside it')


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
        ("first_stage_model.encoder.", "the VAE of .* is incomplete or .*: layers are missing"),
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
    tensors = load_file(sd15)
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(drop)}
    refused(rewritten(sd15, kept), message)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lora_unet_down.lora_up.weight", "is a LoRA; put it in a LoRA folder; single files can be"),
        ("first_stage_model.decoder.conv_in.weight", "is a VAE alone; give the folder or the file that"),
        ("conditioner.embedders.0.model.ln_final.bias", "is the SDXL refiner"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, message: str) -> None:
    """A file that is no such checkpoint is told what it seems to be."""
    path = tmp_path / "other.safetensors"
    save_file({name: torch.zeros(1)}, path)
    refused(path, message)


@pytest.mark.parametrize("half", ["conditioner.embedders.0.", "conditioner.embedders.1."])
def test_sdxl_with_one_text_encoder(
    models: Mapping[tuple[str, bool], Model], tmp_path: Path, half: str
) -> None:
    """It needs both."""
    tensors = load_file(save_original(models["sdxl", False], tmp_path / "both.safetensors"))
    path = tmp_path / "one.safetensors"
    save_file({name: tensor for name, tensor in tensors.items() if not name.startswith(half)}, path)
    refused(path, "is an SDXL checkpoint without both of its text encoders")


def test_what_training_leaves_beside_the_weights(
    sd15: Path, models: Mapping[tuple[str, bool], Model]
) -> None:
    """Averaged weights, schedules and the nesting of a training state change nothing."""
    tensors = load_file(sd15)
    unet = {name: tensor for name, tensor in tensors.items() if name.startswith("model.")}
    beside = {f"model_ema.{name[6:].replace('.', '')}": torch.zeros_like(one) for name, one in unet.items()}
    beside |= {"model_ema.num_updates": torch.tensor(3), "betas": torch.zeros(1000)}
    expected = draw(models["sd15", False], task(negative_prompt=""))
    for prefix in ("", "state_dict."):
        path = rewritten(sd15, {prefix + name: one for name, one in (tensors | beside).items()})
        found = load("trained", path, device=CPU, dtype=None)
        assert torch.equal(draw(found, task(negative_prompt="")), expected)


@pytest.mark.parametrize("mark", ["edm_mean", "edm_vpred.sigma_max"])
def test_another_noise_schedule(models: Mapping[tuple[str, bool], Model], tmp_path: Path, mark: str) -> None:
    """Playground 2.5 and CosXL have SDXL's structure, and would be drawn as noise."""
    path = save_original(models["sdxl", False], tmp_path / "edm.safetensors", **{mark: torch.zeros(4)})
    refused(path, rf"another noise schedule \(EDM: it has {mark}\), which is not supported")


@pytest.mark.parametrize("name", ["input_blocks.1.0.more.weight", "label_emb.0.0.weight"])
def test_another_unet_is_refused(sd15: Path, name: str) -> None:
    """Tensors beyond the architecture are a sign of another one, as unCLIP's embedding of images."""
    path = rewritten(sd15, load_file(sd15) | {f"model.diffusion_model.{name}": torch.zeros(1)})
    refused(path, f"the UNet of .* has tensors of another architecture: .*{name}")
