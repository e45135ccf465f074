"""What a second pass is asked for, and as which tasks it is drawn."""

from __future__ import annotations

import pytest

from sdgrpc.domain import SecondPass, SecondPassMode, TaskKind
from tests.support.tasks import task

PIXEL = SecondPassMode.PIXEL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2", SecondPass(2.0)),
        ("1.5:0.6", SecondPass(1.5, strength=0.6)),
        ("1024x768:0.6:20", SecondPass(width=1024, height=768, strength=0.6, steps=20)),
        ("1024x:pixel", SecondPass(width=1024, mode=PIXEL)),
        ("x512:0.5:4x-Ultra", SecondPass(height=512, strength=0.5, mode=PIXEL, upscaler="4x-Ultra")),
        ("2:0.5:7:latent", SecondPass(2.0, strength=0.5, steps=7)),
    ],
)
def test_texts_are_read_and_written(text: str, expected: SecondPass) -> None:
    """What is written is read as the same."""
    assert SecondPass.parse(text) == expected
    assert SecondPass.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["", "x", "two", "2:", "2:0.5:x:y:z", "2x:0.5:1.5", "-1"])
def test_other_texts_are_refused(text: str) -> None:
    """With a sentence that shows the form."""
    with pytest.raises(ValueError, match="SIZE"):
        SecondPass.parse(text)


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        (SecondPass(), (128, 192)),
        (SecondPass(1.1), (64, 104)),  # 70.4 and 105.6, down to multiples of 8
        (SecondPass(width=96), (96, 144)),
        (SecondPass(height=96), (64, 96)),
        (SecondPass(width=96, height=96), (96, 96)),
    ],
)
def test_sizes_follow_from_the_first(asked: SecondPass, size) -> None:
    """A scale is rounded down to multiples of 8; one side keeps the proportions."""
    found = asked.resolved(64, 96, 20)
    assert (found.width, found.height, found.steps) == (*size, 20)
    assert found.resolved(64, 96, 20) == found


def test_a_named_upscaler_means_pixels() -> None:
    """And a scale of 0.7 stays the decimal that it is: 1.7 of 80 are 136."""
    assert SecondPass(2.0, upscaler="x").resolved(64, 64, 5).mode is PIXEL
    assert SecondPass(1.7).resolved(80, 80, 5).width == 136


def test_passes_are_tasks() -> None:
    """The first generates, the second transforms; steps are counted over both."""
    plain = task(steps=10)
    assert plain.passes == (plain,)
    both = task(steps=10, second_pass=SecondPass(2.0, strength=0.5, steps=9).resolved(64, 64, 10))
    first, second = both.passes
    assert first == plain
    assert (second.kind, second.width, second.sampling.steps) == (TaskKind.TRANSFORM, 128, 9)
    assert (both.step_count, first.step_count, second.step_count) == (14, 10, 4)
    assert both.result_size == (128, 128)
