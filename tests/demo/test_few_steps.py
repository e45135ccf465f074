"""The demonstration's pairs of pictures in many steps and in few, with a scripted server."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sdgrpc.client import Client
from sdgrpc.demo.few_steps import DISTILLED, FEW_STEPS, MANY_STEPS, PROMPTS, draw_pairs, filmstrip, times
from sdgrpc.demo.scenes import SEED
from sdgrpc.terminal.views import PlainView
from sdgrpc.testing.server import draw_script, scripted_server
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.assets import lora_names


@pytest.fixture(scope="module")
def paired():
    """The requests and the results of every prompt in many steps and in few."""
    console = Console(file=io.StringIO())
    with scripted_server(draw_script(steps=2)) as server, Client(server.target) as client:
        results = draw_pairs(client, lambda title: PlainView(console, title))
        yield server.requests, results


def test_pairs_differ_in_what_the_distilled_lora_is_for(paired) -> None:
    """Each prompt twice with one seed: as the model's defaults say, then in four steps without guidance."""
    requests, _ = paired
    assert [request.prompt for request in requests] == [prompt for prompt in PROMPTS for _ in range(2)]
    assert {request.sampling.seed for request in requests} == {SEED}
    asked = [(request.sampling.steps, [lora.name for lora in request.loras]) for request in requests]
    assert asked == [(MANY_STEPS, []), (FEW_STEPS, [DISTILLED.name])] * len(PROMPTS)
    few = [request.sampling for request in requests[1::2]]
    assert {(each.scheduler, each.guidance_scale) for each in few} == {(pb.SCHEDULER_LCM, 1.0)}


def test_the_lora_is_packaged() -> None:
    """The embedded model comes with it."""
    assert DISTILLED.name in lora_names()


def test_both_times_are_told(paired) -> None:
    """The script's pictures take a second and a half each, in a sentence and under each picture."""
    assert times(paired[1]).startswith("3 pictures denoised in 4.50 s in 20 steps, in 4.50 s in 4 with")
    labels = [label for _, label in filmstrip(paired[1]).frames]
    assert labels == ["20 steps, 1.50 s", "4 steps, 1.50 s"] * len(PROMPTS)
