"""The three published spellings hold the same factors, and fusing follows the formula."""

import json

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from tools.tiny_model import lora
from tools.tiny_model.models import Run, make_text_encoder, make_tokenizer, make_unet
from tools.tiny_model.train_lora import ATTENTION, CONVOLUTIONS, PLANS, metadata


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    torch.manual_seed(0)
    return make_unet()


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return make_text_encoder(make_tokenizer(Run(tmp_path_factory.mktemp("run"))))


def factors_of(model, parts) -> lora.Factors:
    generator = torch.Generator().manual_seed(1)
    made = lora.make(model, lora.targets(model, parts), 4, generator)
    for factor in made.values():
        factor.up = torch.randn(factor.up.shape, generator=generator)
    return made


@pytest.mark.parametrize("spelling", ["kohya", "peft", "diffusers"])
def test_a_written_file_reads_back(spelling, unet, text, tmp_path):
    of_unet = factors_of(unet, (*ATTENTION, *CONVOLUTIONS))
    of_text = factors_of(text, ("self_attn",)) if spelling == "diffusers" else {}
    tensors = lora.diffusers(of_unet, of_text) if of_text else getattr(lora, spelling)(of_unet)
    lora.write(tensors, metadata(PLANS["postcard"], 1, ["a star"]), tmp_path / "x.safetensors")
    read = lora.read(tmp_path / "x.safetensors", unet, text)
    for before, after in zip((of_unet, of_text), read, strict=True):
        assert before.keys() == after.keys()
        for name, factor in before.items():
            assert torch.allclose(factor.delta(), after[name].delta(), atol=2e-2)


def test_files_are_float16(unet, tmp_path):
    lora.write(lora.kohya(factors_of(unet, ("attn1.",))), {}, tmp_path / "x.safetensors")
    assert {t.dtype for t in load_file(tmp_path / "x.safetensors").values()} == {torch.float16}


def test_fusing_adds_each_change_at_its_strength_and_leaves_the_model(unet):
    made = factors_of(unet, (".conv1",))
    name, factor = next(iter(made.items()))
    before = unet.get_parameter(f"{name}.weight").detach().clone()
    fused = lora.fuse(unet, [(made, 0.5), (made, 0.25)])[f"{name}.weight"]
    assert torch.allclose(fused, before + 0.75 * factor.delta(), atol=1e-5)
    assert torch.equal(unet.get_parameter(f"{name}.weight"), before)


def test_fresh_factors_change_nothing(unet):
    made = lora.make(unet, lora.targets(unet, ATTENTION), 4, torch.Generator().manual_seed(0))
    assert all(not factor.delta().any() for factor in made.values())


def test_only_the_concept_has_a_trigger():
    triggers = {
        name: metadata(plan, 1, ["a star"]).get("modelspec.trigger_phrase") for name, plan in PLANS.items()
    }
    assert {name: trigger for name, trigger in triggers.items() if trigger} == {"flower": "flower"}


def test_the_tags_count_the_captions_words():
    tags = json.loads(metadata(PLANS["flower"], 1, ["a red flower", "a flower, blue"])["ss_tag_frequency"])
    assert tags == {"1_flower": {"flower": 2, "red": 1, "blue": 1}}
