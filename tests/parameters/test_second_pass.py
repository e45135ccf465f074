"""Second passes in a picture's text, in the web UI's words."""

from __future__ import annotations

import pytest

from sdgrpc.domain import SecondPass, SecondPassMode
from sdgrpc.parameters import parameters_text, read_parameters
from tests.support.engine import make_model
from tests.support.jobs import make_task

PIXEL = SecondPassMode.PIXEL
WEB_UI = "a cat\nSteps: 20, Sampler: Euler, CFG scale: 7, Seed: 1, Size: 512x512, {}, Version: v1.10.1"


@pytest.mark.parametrize(
    ("second", "words"),
    [
        (SecondPass(2.0, strength=0.6), "Denoising strength: 0.6, Hires upscale: 2, Hires steps: 10, "),
        (SecondPass(width=96, steps=7, mode=PIXEL), "Hires resize: 96x96, Hires steps: 7, "),
        (SecondPass(1.5, upscaler="4x-Ultra, new"), 'Hires upscaler: "4x-Ultra, new"'),
    ],
)
def test_what_is_written_is_read(second: SecondPass, words: str) -> None:
    """It asks for the same second pass, and nothing is left over to say."""
    resolved = second.resolved(64, 64, 10)
    text = parameters_text(make_task(steps=10, second_pass=resolved), make_model(), (), seed=0)
    assert words in text
    found = read_parameters(text)
    assert found.second_pass is not None
    assert found.second_pass.resolved(64, 64, 10) == resolved
    assert (found.strength, found.notes, found.width) == (None, (), 64)


def test_steps_of_the_web_ui_all_run() -> None:
    """So the schedule is as long as it takes: 10 of 20 at 0.5; without a number as many as `Steps`."""
    hires = "Denoising strength: 0.5, Hires upscale: 1.5, Hires steps: 10, Hires upscaler: R-ESRGAN 4x+"
    assert read_parameters(WEB_UI.format(hires)).second_pass == SecondPass(
        1.5, strength=0.5, steps=20, mode=PIXEL, upscaler="R-ESRGAN 4x+"
    )
    plain = "Denoising strength: 0.7, Hires resize: 0x768, Hires upscaler: Latent"
    found = read_parameters(WEB_UI.format(plain)).second_pass
    assert found == SecondPass(height=768, strength=0.7, steps=29)  # int(0.7 * 29) = 20


def test_other_ways_to_enlarge_latents_are_noted() -> None:
    """They are drawn as "Latent"."""
    found = read_parameters(WEB_UI.format("Hires upscale: 2, Hires upscaler: Latent (bicubic)"))
    assert found.second_pass is not None
    assert found.second_pass.mode is SecondPassMode.LATENT
    assert "not used: Hires upscaler: Latent (bicubic)" in found.notes


def test_a_strength_alone_is_no_second_pass() -> None:
    """It is a Transform's."""
    found = read_parameters(WEB_UI.format("Denoising strength: 0.5"))
    assert (found.strength, found.second_pass) == (0.5, None)
