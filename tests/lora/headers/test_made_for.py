"""What LoRA files were made for, told from names, metadata and tensors."""

from __future__ import annotations

import pytest

from sdgrpc.lora.headers.made_for import made_for

TIMED = ("unet.down_blocks.0.resnets.0.time_emb_proj", "unet.conv_in")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("lcm-lora-sdv1-5", "LCM: 2 to 8 steps, guidance 1 to 2, scheduler lcm"),
        ("TCD-SDXL-LoRA", "TCD: 2 to 50 steps, guidance 1, scheduler tcd"),
        ("Hyper-SD15-1step-lora", "Hyper-SD: 1 step, guidance 1, scheduler ddim, trailing"),
        ("Hyper-SDXL-8steps-CFG-lora", "Hyper-SD: 8 steps, guidance 5 to 8, scheduler ddim, trailing"),
        ("sdxl_lightning_4step_lora", "Lightning: 4 steps, guidance 1, scheduler euler, trailing"),
        ("dmd2_sdxl_4step_lora_fp16", "DMD2: 4 steps, guidance 1, scheduler lcm, trailing"),
        (
            "sd_xl_turbo_lora_v1",
            "Turbo: 1 to 8 steps, guidance 1 to 2, scheduler euler_ancestral, trailing",
        ),
    ],
)
def test_published_names(name: str, text: str) -> None:
    """The files as their authors call them."""
    told = made_for(name)
    assert told is not None
    assert told.text == text


@pytest.mark.parametrize(
    "name", ["lightning_strikes", "turbo_car", "welcome_lcmore", "hyperreal", "postcard"]
)
def test_names_that_only_sound_like_it(name: str) -> None:
    """Styles are not taken for distilled files."""
    assert made_for(name) is None


def test_the_title_in_the_metadata_counts() -> None:
    """A renamed file keeps its author's name."""
    told = made_for("a", {"modelspec.title": "SDXL-Lightning 8step LoRA"})
    assert told is not None
    assert (told.kind, told.steps) == ("Lightning", 8)
    assert made_for("a", {"modelspec.description": "goes well with lcm"}) is None


def test_unnamed_files_are_told_by_their_tensors() -> None:
    """One rank of 64, time embeddings, no text encoder, nothing of a trainer of styles."""
    told = made_for("a", {}, TIMED, (64, 64))
    assert told is not None
    assert told.text == "few steps, by its tensors: 1 to 8 steps, guidance 1 to 2"
    assert made_for("a", {"ss_network_module": "lycoris.kohya"}, TIMED, (64, 64)) is None
    assert made_for("a", {}, (*TIMED, "text_encoder.layers.0"), (64, 64, 64)) is None
    assert made_for("a", {}, TIMED, (32, 64)) is None


@pytest.mark.parametrize("metadata", [{"ss_v_parameterization": "True"}, {"modelspec.prediction_type": "v"}])
def test_files_for_v_prediction(metadata: dict[str, str]) -> None:
    """A style that was trained on a v-prediction model says so."""
    told = made_for("a", metadata)
    assert told is not None
    assert told.text == "models that predict v_prediction"
    assert made_for("a", {"ss_v_parameterization": "False"}) is None
