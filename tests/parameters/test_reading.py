"""Texts of pictures read back: ours field by field, the web UI's as far as they are understood."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sdgrpc.domain import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    NO_WEIGHTS,
    BlockWeights,
    GuidanceInterval,
    LoraReport,
    MaskOptions,
    ResizeMode,
    Sampling,
    Scheduler,
    SigmaSpacing,
    StepReuse,
    TaskKind,
    TimestepSpacing,
)
from sdgrpc.parameters.reading import PictureLora, read_parameters
from sdgrpc.parameters.values import joined, sections
from sdgrpc.parameters.writing import parameters_text
from sdgrpc.prompting.tags import BLANKS, take_tags
from tests.support.engine import make_model
from tests.support.jobs import make_task

floats = st.floats(-5, 5, width=32)
prompts = st.one_of(
    st.text(max_size=40),
    st.lists(st.sampled_from(["Negative prompt:", "Steps: 1, Seed: 2, Size: 1x1", "a", "", ' "', ","])).map(
        "\n".join
    ),
).filter(lambda prompt: take_tags(prompt).text == prompt)
names = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and name == name.strip())
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
shares = st.floats(0, 1, width=32)


@st.composite
def samplings(draw: st.DrawFn) -> Sampling:
    """What the contract lets through: one of the two spacings, eta and gamma where the scheduler has them."""
    scheduler = draw(st.sampled_from(Scheduler))
    sigmas = draw(st.sampled_from(SigmaSpacing))
    timesteps = draw(st.none() | st.sampled_from(TimestepSpacing)) if sigmas is SigmaSpacing.DEFAULT else None
    return Sampling(
        steps=draw(st.integers(1, 1000)),
        guidance_scale=draw(st.floats(1, 100, width=32)),
        scheduler=scheduler,
        sigma_spacing=sigmas,
        seed=draw(st.integers(0, 2**63 - 1)),
        clip_skip=draw(st.integers(0, 11)),
        timestep_spacing=timesteps,
        guidance_rescale=draw(shares),
        eta=draw(st.none() | shares) if scheduler in DEFAULT_ETA else None,
        gamma=draw(st.none() | shares) if scheduler in DEFAULT_GAMMA else None,
        guidance_interval=draw(st.none() | st.builds(GuidanceInterval, shares, shares)),
        step_reuse=draw(st.none() | st.builds(StepReuse, st.integers(2, 8), st.integers(1, 2))),
    )


@st.composite
def tasks(draw: st.DrawFn):
    kind = draw(st.sampled_from(TaskKind))
    task = make_task(kind=kind, prompt=draw(prompts), negative_prompt=draw(prompts))
    padding = st.none() | st.integers(0, 4096)
    return replace(
        task,
        sampling=draw(samplings()),
        width=8 * draw(st.integers(8, 512)),
        height=8 * draw(st.integers(8, 512)),
        strength=draw(st.floats(0, 1, width=32)) if kind is not TaskKind.GENERATE else 1.0,
        resize_mode=draw(st.sampled_from(ResizeMode)),
        mask_options=MaskOptions(draw(st.floats(0, 1024, width=32)), draw(padding))
        if kind is TaskKind.INPAINT
        else MaskOptions(),
    )


@st.composite
def reports(draw: st.DrawFn) -> LoraReport:
    sha256, autov3 = draw(hashes), draw(hashes)[:12]
    start, end = sorted(draw(st.lists(st.floats(0, 1), min_size=2, max_size=2, unique=True)))
    weights = draw(st.sampled_from(["", "OUTD", "1,0.5,-0.25", "unet.down*0.5,unet.mid*0"]))
    return LoraReport(
        draw(names),
        sha256,
        ("lora",),
        {"unet": 1},
        0.1,
        draw(floats),
        draw(floats),
        autov3=autov3,
        block_weights=BlockWeights.parse(weights) if weights else NO_WEIGHTS,
        start=start,
        end=end,
    )


@given(tasks(), names, st.lists(reports(), max_size=4), st.integers(0, 2**63 - 1), hashes)
def test_everything_comes_back(task, model: str, loras: list[LoraReport], seed: int, sha256: str) -> None:
    """Field by field, whatever the prompts hold, to the last digit; nothing is left to say."""
    text = parameters_text(task, make_model(name=model), loras, seed, model_sha256=sha256)
    found = read_parameters(text)
    stripped = task.prompt.strip(BLANKS)
    assert found.prompt in ((stripped,) if loras else (stripped, task.prompt))
    assert found.negative_prompt in (task.negative_prompt, task.negative_prompt.strip(BLANKS))
    assert found.loras == tuple(
        PictureLora(
            each.name,
            each.strength,
            each.text_encoder_strength,
            each.autov3,
            each.sha256,
            str(each.block_weights),
            each.start,
            each.end,
        )
        for each in loras
    )
    sampling = task.sampling
    assert (found.steps, found.guidance_scale, found.seed) == (sampling.steps, sampling.guidance_scale, seed)
    assert found.scheduler == sampling.scheduler
    assert (found.sigma_spacing or SigmaSpacing.DEFAULT) == sampling.sigma_spacing
    assert found.timestep_spacing == sampling.timestep_spacing
    assert (found.guidance_rescale or 0.0) == sampling.guidance_rescale
    for said, meant, default in (
        (found.eta, sampling.eta, DEFAULT_ETA.get(sampling.scheduler)),
        (found.gamma, sampling.gamma, DEFAULT_GAMMA.get(sampling.scheduler)),
    ):
        assert (default if said is None else said) == (default if meant is None else meant)
    assert (found.guidance_interval, found.step_reuse) == (sampling.guidance_interval, sampling.step_reuse)
    assert (found.width, found.height, found.clip_skip or 0) == (task.width, task.height, sampling.clip_skip)
    assert (found.model, found.model_hash, found.model_sha256) == (model, sha256[:10], sha256)
    assert found.strength == (None if task.kind is TaskKind.GENERATE else task.strength)
    assert (found.resize_mode or ResizeMode.STRETCH) == task.resize_mode
    assert found.mask_blur == (task.mask_options.blur or None)
    assert found.crop_padding == task.mask_options.crop_padding
    assert found.is_ours
    assert found.notes == ()


OF_THE_WEB_UI = """\
portrait of a knight, (rim light:1.2), [blurry], <lora:add_detail:0.6> <lora:inks v2:0.4:0.8>
second line
Negative prompt: lowres, (bad hands:1.4),
watermark
Steps: 28, Sampler: DPM++ 2M, Schedule type: Automatic, CFG scale: 6.5, Seed: 3312345678, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, VAE hash: 735e4c3a44, VAE: vae-ft-mse.safetensors, \
Clip skip: 2, Lora hashes: "add_detail: 7c6bad76eb54, inks v2: 0123456789ab", Version: v1.9.4"""


def test_a_picture_of_the_web_ui() -> None:
    """Everything that is drawn from is read; what its version draws otherwise is said."""
    found = read_parameters(OF_THE_WEB_UI)
    assert found.prompt == "portrait of a knight, (rim light:1.2), [blurry],  \nsecond line"
    assert found.negative_prompt == "lowres, (bad hands:1.4),\nwatermark"
    assert found.loras == (
        PictureLora("add_detail", 0.6, 0.6, "7c6bad76eb54"),
        PictureLora("inks v2", 0.8, 0.4, "0123456789ab"),
    )
    assert (found.steps, found.guidance_scale, found.seed) == (28, 6.5, 3312345678)
    assert (found.width, found.height, found.clip_skip) == (512, 768, 1)
    assert (found.scheduler, found.sigma_spacing) == (Scheduler.DPMPP_2M, SigmaSpacing.KARRAS)
    assert (found.model, found.model_hash) == ("v1-5-pruned-emaonly", "6ce0161689")
    assert not found.is_ours
    assert found.notes == ("v1.9.4 drew it, from other noise; expect a picture like it, not the same",)


@pytest.mark.parametrize(
    ("sampler", "schedule", "expected"),
    [
        ("Euler a", "Automatic", (Scheduler.EULER_ANCESTRAL, SigmaSpacing.DEFAULT)),
        ("DPM++ 2M Karras", "", (Scheduler.DPMPP_2M, SigmaSpacing.KARRAS)),
        ("DPM++ 2M SDE Exponential", "", (Scheduler.DPMPP_2M_SDE, SigmaSpacing.EXPONENTIAL)),
        ("DPM++ 2M", "", (Scheduler.DPMPP_2M, None)),
        ("DPM++ SDE", "Automatic", (Scheduler.DPMPP_SDE, SigmaSpacing.KARRAS)),
        ("DPM++ 2M SDE", "Automatic", (Scheduler.DPMPP_2M_SDE, SigmaSpacing.EXPONENTIAL)),
        ("DPM2 a", "Karras", (Scheduler.KDPM2_ANCESTRAL, SigmaSpacing.KARRAS)),
        ("PLMS", "Uniform", (Scheduler.PNDM, SigmaSpacing.DEFAULT)),
        ("Euler", "Beta", (Scheduler.EULER, SigmaSpacing.BETA)),
        ("Restart", "Karras", (None, SigmaSpacing.KARRAS)),
        ("Euler", "Polyexponential", (Scheduler.EULER, None)),
    ],
)
def test_samplers_of_the_web_ui(sampler: str, schedule: str, expected: tuple) -> None:
    """Of old and new versions; `Automatic` is what each sampler takes there. Unknown ones are said."""
    part = f"Schedule type: {schedule}, " if schedule else ""
    found = read_parameters(f"a\nSteps: 20, Sampler: {sampler}, {part}CFG scale: 7, Seed: 1, Version: v1.9.4")
    assert (found.scheduler, found.sigma_spacing) == expected
    unknown = [f"Sampler: {sampler}"] if expected[0] is None else []
    unknown += [f"Schedule type: {schedule}"] if schedule and expected[1] is None else []
    assert all(any(word in note for note in found.notes) for word in unknown)


@pytest.mark.parametrize(
    ("line", "note"),
    [
        (
            "Steps: 20, Seed: 1, CFG scale: 7, Face restoration: CodeFormer, ENSD: 31337",
            "Face restoration: CodeFormer, ENSD",
        ),
        ("Steps: many, Seed: 1, CFG scale: 7", "Steps: many is not understood"),
        ("Steps: 20, Seed: -1, CFG scale: 7", "Seed: -1 is not understood"),
        ("Steps: 20, Seed: 1, CFG scale: nan", "CFG scale: nan is not understood"),
        ("Steps: 20, Seed: 1, Size: large", "Size: large is not understood"),
    ],
)
def test_what_is_not_understood_is_said(line: str, note: str) -> None:
    """And the rest is used."""
    found = read_parameters(f"a\n{line}")
    assert any(note in each for each in found.notes), found.notes
    assert found.prompt == "a"


def test_tags_that_are_not_read_are_said() -> None:
    """Other networks of the web UI are left out of the prompt."""
    found = read_parameters("a <hypernet:x:1> <lyco:y:1>\nSteps: 1, Seed: 1, CFG scale: 1, Version: sdgrpc 1")
    assert found.prompt == "a"
    assert [note.split(",")[0] for note in found.notes] == ["<hypernet:…>", "<lyco:…>"]


def test_a_text_without_values_is_a_prompt() -> None:
    """As when only the prompt was copied; a cut text says so."""
    assert read_parameters("a\nb: c").prompt == "a\nb: c"
    assert read_parameters("").prompt == ""
    assert "was cut" in read_parameters("a castle and…").notes[0]


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Nothing raises."""
    read_parameters(text)


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z][A-Za-z0-9 /-]{1,20}", fullmatch=True).filter(lambda key: key == key.strip()),
        st.text(),
        min_size=3,
        max_size=6,
    )
)
def test_values_come_back(values: dict[str, str]) -> None:
    """Whatever they hold: marks of the format, quotes, white space, nothing."""
    assert sections(f"a\n{joined(values)}").values == values
