"""SDXL: two text encoders, pooled prompts, sizes; compared with diffusers' SDXL pipelines."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.denoise import ModelInput
from sdgrpc.diffusion.sampling.predict import predict
from sdgrpc.domain import Scheduler, Task, TaskKind
from sdgrpc.errors import InvalidRequest, ModelError
from tests.support.models import save_sdxl_model
from tests.support.oracle import diffusers_errs, diffusers_latents, relative_difference
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
TOLERANCE = 1e-4
# One of each sort: sigmas, ancestral, two evaluations per step, timesteps, multistep, stochastic, distilled.
SCHEDULERS = [
    Scheduler.EULER,
    Scheduler.EULER_ANCESTRAL,
    Scheduler.HEUN,
    Scheduler.DDIM,
    Scheduler.DPMPP_2M,
    Scheduler.DPMPP_2M_SDE,
    Scheduler.LCM,
]

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def assert_equal(model: Model, asked: Task) -> None:
    """Ours and diffusers' latents are equal, but where diffusers errs."""
    equal = relative_difference(draw(model, asked), diffusers_latents(model, asked)) <= TOLERANCE
    assert equal is not diffusers_errs(model, asked)


@pytest.mark.parametrize("kind", TaskKind)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_schedulers_in_every_kind_of_call(sdxl_model: Model, scheduler: Scheduler, kind: TaskKind) -> None:
    """Text-to-image, image-to-image and inpainting agree with diffusers."""
    assert_equal(sdxl_model, task(kind, scheduler=scheduler))


@pytest.mark.parametrize("strength", [1.0, 0.5])
@pytest.mark.parametrize("scheduler", [Scheduler.EULER, Scheduler.DDIM])
def test_inpainting_model(sdxl_inpainting_model: Model, scheduler: Scheduler, strength: float) -> None:
    """A UNet of 9 channels is shown the mask and the masked image."""
    assert_equal(sdxl_inpainting_model, task(TaskKind.INPAINT, scheduler=scheduler, strength=strength))


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance_scale": 1.0},
        {"negative_prompt": ""},
        {"clip_skip": 1},
        {"clip_skip": 2},
        {"image_count": 2},
        {"width": 96, "height": 32},
    ],
    ids=str,
)
def test_sampling_options(sdxl_model: Model, changes: dict[str, object]) -> None:
    """Guidance, empty negative prompts, clip skip, several images and other sizes agree."""
    assert_equal(sdxl_model, task(**changes))


def test_empty_negative_prompts_are_encoded_where_the_index_says_so(tmp_path: Path) -> None:
    """Without force_zeros_for_empty_prompt an empty negative prompt is a prompt."""
    model = load("xl", save_sdxl_model(tmp_path, force_zeros=False), device=CPU, dtype=None)
    assert_equal(model, task(negative_prompt=""))
    negative = encode(model, "a red cat", "").negative
    assert negative is not None
    assert negative.abs().max() > 0


def test_an_empty_negative_prompt_is_zeros(sdxl_model: Model) -> None:
    """As SDXL base's index says; a negative prompt of words is not."""
    empty, words = (encode(sdxl_model, "a red cat", negative) for negative in ("", "blue"))
    for one in (empty.negative, empty.negative_pooled):
        assert one is not None
        assert one.abs().max() == 0
    assert words.negative is not None
    assert words.negative.abs().max() > 0


def test_the_size_matters(sdxl_model: Model) -> None:
    """The UNet is told the picture's size: with other sizes the same sample is predicted otherwise."""
    conditioning = encode(sdxl_model, "a red cat", "blue")
    asked = ModelInput(torch.ones(1, 4, 8, 8), torch.tensor(500), conditioning, 3.0)
    told = predict(sdxl_model, [asked], 8)[0]
    lied = replace(sdxl_model, info=replace(sdxl_model.info, vae_scale_factor=64))
    assert not torch.allclose(told, predict(lied, [asked], 8)[0])


def test_several_jobs_share_a_call(sdxl_model: Model) -> None:
    """Each row keeps its own pooled prompt, with guidance and without."""
    sample = torch.ones(1, 4, 8, 8)
    for scale in (1.0, 3.0):
        prompts = [encode(sdxl_model, prompt, "blue") for prompt in ("a red cat", "a dog")]
        inputs = [ModelInput(sample, torch.tensor(at), one, scale) for at, one in enumerate(prompts, 400)]
        together = predict(sdxl_model, inputs, 8)
        assert not torch.allclose(together[0], together[1])
        for asked, prediction in zip(inputs, together, strict=True):
            alone = predict(sdxl_model, [asked], 8)[0]
            torch.testing.assert_close(prediction, alone, rtol=1e-4, atol=1e-5)


def test_each_part_of_a_prompt_is_pooled_for_itself(sdxl_model: Model) -> None:
    """What composed prompts predict is the sum of what their parts do alone, each with its own pooled one."""
    sample, at = torch.ones(1, 4, 8, 8), torch.tensor(400)
    texts, weights = ("a red cat", "a dog"), (0.8, -0.4)
    parts = encode(sdxl_model, [*zip(texts, weights, strict=True)], "blue")
    assert parts.pooled is not None
    assert parts.pooled.shape == (2, 24)
    ours = predict(sdxl_model, [ModelInput(sample, at, parts, 3.0)], 8)[0]
    negative, *positives = (
        predict(sdxl_model, [ModelInput(sample, at, encode(sdxl_model, text, None), 1.0)], 8)[0].double()
        for text in ("blue", *texts)
    )
    towards = sum(weight * (each - negative) for weight, each in zip(weights, positives, strict=True))
    torch.testing.assert_close(ours.double(), negative + 3.0 * towards, rtol=1e-4, atol=1e-5)


def test_long_prompts_are_chunked_for_both_encoders(sdxl_model: Model) -> None:
    """Words beyond 75 tokens change their own chunk of both halves; the first chunk is pooled."""
    long = " ".join(["cat"] * 80)
    cat, dog = (encode(sdxl_model, f"{long} {word}", "blue") for word in ("cat", "dog"))
    assert cat.positive.shape == (1, 154, 80)
    assert cat.negative is not None
    assert cat.negative.shape == (1, 154, 80)
    for half in (slice(0, 32), slice(32, 80)):
        assert torch.equal(cat.positive[:, :77, half], dog.positive[:, :77, half])
        assert not torch.equal(cat.positive[:, 77:, half], dog.positive[:, 77:, half])
    assert cat.pooled is not None
    assert dog.pooled is not None
    assert cat.pooled.shape == (1, 24)
    assert torch.equal(cat.pooled, dog.pooled)


def test_clip_skip_must_leave_a_layer(sdxl_model: Model) -> None:
    """The smaller text encoder sets the range."""
    with pytest.raises(InvalidRequest, match="3 is not in 0 to 2"):
        encode(sdxl_model, "a cat", None, 3)


def test_it_says_what_it_is(sdxl_model: Model) -> None:
    """LoRAs may change both text encoders, and the base is SDXL's."""
    assert set(sdxl_model.lora_components()) == {"unet", "text_encoder", "text_encoder_2"}
    assert sdxl_model.info.base == "sdxl"
    assert sdxl_model.info.scheduler is Scheduler.EULER


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("model_index.json", {"text_encoder": [None, None]}, "is the SDXL refiner; only SDXL base"),
        ("model_index.json", {"tokenizer_2": None}, "names no tokenizer_2"),
        ("unet/config.json", {"addition_time_embed_dim": 10}, "not the refiner"),
        ("unet/config.json", {"class_embed_type": "identity"}, "class_embed_type = 'identity'; only None"),
        ("vae/config.json", {"latents_mean": [0, 0, 0, 0]}, "has latents_mean, which is not supported"),
    ],
)
def test_folders_that_are_not_sdxl_base(
    sdxl_folder: Path, tmp_path: Path, file: str, changes: dict[str, object], message: str
) -> None:
    """What the refiner and other relatives lack or add is named."""
    copy = Path(shutil.copytree(sdxl_folder, tmp_path / "model"))
    path = copy / file
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=message):
        load("broken", copy, device=CPU, dtype=None)
