"""Second passes judged and read."""

from __future__ import annotations

import pytest

from sdgrpc.api.codec import accepted
from sdgrpc.api.validate import read
from sdgrpc.domain import Accepted, SecondPass, SecondPassMode, Task
from sdgrpc.errors import InvalidRequest
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import generate, make_settings
from tests.support.engine import make_model

PIXEL = SecondPassMode.PIXEL


def read_with(sampling: pb.Sampling | None = None, size: tuple[int, int] = (64, 96), **second) -> Task:
    request = generate(width=size[0], height=size[1], second_pass=pb.SecondPass(**second))
    request.sampling.MergeFrom(sampling or pb.Sampling())
    return read(request, make_settings(max_pixels=512 * 512), [make_model()])


def violations(**arguments) -> dict[str, str]:
    with pytest.raises(InvalidRequest) as caught:
        read_with(**arguments)
    return {each.field: each.description for each in caught.value.violations}


def test_defaults_are_filled_in() -> None:
    """Twice the size, 0.7, the first pass' steps, LATENT; and `accepted` tells them."""
    found = read_with(pb.Sampling(steps=9))
    assert found.second_pass == SecondPass(2.0, 128, 192, 0.7, 9, SecondPassMode.LATENT)
    told = accepted(Accepted(0, found))
    assert told.second_pass == pb.SecondPass(
        width=128, height=192, strength=0.7, steps=9, mode=pb.SECOND_PASS_MODE_LATENT
    )
    assert (told.width, told.height, told.step_count) == (64, 96, 9 + 6)


def test_every_field_is_read() -> None:
    """Floats by their shortest decimals; previews may be as large as the second picture."""
    found = read_with(
        size=(64, 64), width=96, height=80, strength=0.3, steps=40, mode=pb.SECOND_PASS_MODE_PIXEL
    )
    assert found.second_pass == SecondPass(0.0, 96, 80, 0.3, 40, PIXEL)
    request = generate(width=64, height=64, second_pass=pb.SecondPass(scale=1.2))
    request.output.preview.max_side = 500
    task = read(request, make_settings(), [make_model()])
    assert (task.result_size, task.output.preview.max_side) == ((72, 72), 72)


@pytest.mark.parametrize(
    ("second", "field"),
    [
        ({"scale": 0.5}, "scale"),
        ({"scale": 9}, "scale"),
        ({"scale": 2, "width": 128}, "scale"),
        ({"width": 100}, "width"),
        ({"height": 8192}, "height"),
        ({"strength": 1.5}, "strength"),
        ({"steps": 151}, "steps"),
        ({"mode": 7}, "mode"),
        ({"mode": pb.SECOND_PASS_MODE_LATENT, "upscaler": "x"}, "upscaler"),
        ({"upscaler": "x"}, "upscaler"),
        ({"scale": 8}, "scale"),  # 512x768 pixels
        ({"width": 1024}, "width"),
    ],
)
def test_what_is_wrong_is_named(second, field: str) -> None:
    """One violation, of the field that has to change."""
    assert list(violations(**second)) == [f"second_pass.{field}"]


def test_its_steps_have_to_go_with_the_sampling() -> None:
    """What is refused of `sampling.steps` is refused of these; unset they are those, and said once."""
    reuse = pb.Sampling(steps=20, step_reuse=pb.StepReuse(every=2))
    assert "step_reuse" in violations(sampling=reuse, steps=5)["second_pass.steps"]
    assert read_with(reuse, steps=12).step_count == 20 + 8
    few = pb.Sampling(steps=5, step_reuse=pb.StepReuse(every=2))
    assert list(violations(sampling=few)) == ["sampling.step_reuse"]
    narrow = pb.Sampling(steps=20, guidance_interval=pb.GuidanceInterval(start=0.1, end=0.15))
    assert "guidance_interval" in violations(sampling=narrow, steps=4)["second_pass.steps"]


def test_no_late_start_beside_it() -> None:
    """What such a job did could not be told by one share."""
    assert list(violations(scale=2, sampling=pb.Sampling(late_start=0.5))) == ["sampling.late_start"]
