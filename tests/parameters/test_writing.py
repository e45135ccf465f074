"""The text of generation parameters."""

from __future__ import annotations

from dataclasses import replace

from sdgrpc import __version__
from sdgrpc.domain import LoraReport, MaskOptions, Scheduler, SigmaSpacing, TaskKind
from sdgrpc.parameters.writing import SAMPLER_NAMES, SCHEDULE_TYPES, parameters_text
from tests.support.engine import make_model
from tests.support.jobs import make_task


def report(name: str, strength: float = 1.0, text_encoder_strength: float | None = None) -> LoraReport:
    second = strength if text_encoder_strength is None else text_encoder_strength
    sha256, autov3 = name[0] * 64, name[-1] * 12
    return LoraReport(name, sha256, ("lora",), {"unet": 1}, 0.1, strength, second, autov3=autov3)


def test_a_plain_picture() -> None:
    """Prompt, negative prompt, and one line of values; the seed is the picture's own."""
    task = make_task(steps=20, prompt="a castle", negative_prompt="people")
    assert parameters_text(task, make_model(name="v15"), (), seed=42) == (
        "a castle\n"
        "Negative prompt: people\n"
        "Steps: 20, Sampler: Euler, Schedule type: Automatic, CFG scale: 1, Seed: 42, Size: 64x64, "
        f"Model: v15, RNG: CPU, Version: sdgrpc {__version__}"
    )


def test_without_a_negative_prompt_there_is_no_line_for_it() -> None:
    """Readers take the last line for the values."""
    assert parameters_text(make_task(), make_model(), (), seed=0).count("\n") == 1


def test_loras_are_tagged_and_hashed() -> None:
    """As A1111 writes them: a tag with the strengths (text encoder first), and hashes in quotes."""
    loras = (report("inks", 0.8), report("dots/fine", 0.5, 0.25))
    text = parameters_text(make_task(prompt="a"), make_model(), loras, seed=0)
    assert text.startswith("a <lora:inks:0.8> <lora:dots/fine:te=0.25:unet=0.5>\n")
    assert 'Lora hashes: "inks: ssssssssssss, dots/fine: eeeeeeeeeeee", ' in text
    assert f'Lora SHA-256: "inks: {"i" * 64}, dots/fine: {"d" * 64}", ' in text


def test_the_model_is_hashed_as_the_web_ui_does() -> None:
    """Ten digits before its name, and all of them further on; nothing where they are not known."""
    sha256 = "0123456789abcdef" * 4
    text = parameters_text(make_task(), make_model(name="v15"), (), seed=0, model_sha256=sha256)
    assert f"Model hash: 0123456789, Model: v15, RNG: CPU, Model SHA-256: {sha256}, " in text
    assert "hash" not in parameters_text(make_task(), make_model(name="v15"), (), seed=0)


def test_names_beside_hashes_have_no_marks_of_the_list() -> None:
    """As the web UI leaves colons and commas out; the tag keeps them, with a backslash where it needs one."""
    text = parameters_text(make_task(prompt="a"), make_model(), [report("a:b, c", 0.5)], seed=0)
    assert text.startswith("a <lora:a\\:b, c:0.5>\n")
    assert 'Lora hashes: "ab c: cccccccccccc"' in text


def test_numbers_are_their_shortest_decimals() -> None:
    """Neither cut to six digits nor drawn out."""
    task = make_task(kind=TaskKind.TRANSFORM, strength=0.1234567)
    task = replace(task, sampling=replace(task.sampling, guidance_scale=7.1234567))
    text = parameters_text(task, make_model(), [report("x", 0.12345679)], seed=2**62)
    assert "<lora:x:0.12345679>" in text
    assert "CFG scale: 7.1234567, Seed: 4611686018427387904, " in text
    assert "Denoising strength: 0.1234567, " in text


def test_prompts_that_look_like_the_format_stand_beside() -> None:
    """Only those, so that others are as short as the web UI's."""
    plain = parameters_text(make_task(prompt="a\nb: c, d", negative_prompt="e"), make_model(), (), seed=0)
    assert "Raw" not in plain
    text = parameters_text(make_task(prompt="a\nNegative prompt: b"), make_model(), (), seed=0)
    assert 'Raw prompt: "a\\nNegative prompt: b", Raw negative prompt: , ' in text


def test_an_inpainting_task_tells_how() -> None:
    """Strength, blur, padding and clip skip appear where they matter, under A1111's names."""
    task = make_task(kind=TaskKind.INPAINT, strength=0.75, mask_options=MaskOptions(4.0, 32))
    task = replace(task, sampling=replace(task.sampling, clip_skip=1, guidance_scale=7.5))
    text = parameters_text(task, make_model(), (), seed=0)
    assert "CFG scale: 7.5, " in text
    assert "Denoising strength: 0.75, Mask blur: 4, Masked area padding: 32, RNG: CPU, Clip skip: 2, " in text


def test_values_with_marks_of_the_format_are_quoted() -> None:
    """A model called `a, b` does not become two values."""
    assert 'Model: "a, b", ' in parameters_text(make_task(), make_model(name="a, b"), (), seed=0)


def test_every_scheduler_and_spacing_has_a_name() -> None:
    """Nothing of the contract fails for want of a name."""
    assert set(SAMPLER_NAMES) == set(Scheduler)
    assert set(SCHEDULE_TYPES) == set(SigmaSpacing)
    assert len(set(SAMPLER_NAMES.values())) == len(Scheduler)
