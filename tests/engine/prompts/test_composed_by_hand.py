"""Prompts joined by AND, against a plain loop that adds up the UNet's answers by the paper's formula.

`negative + scale * sum(weight * (positive - negative))` (Liu et al. 2022, https://arxiv.org/abs/2206.01714),
in float64; each part is encoded and asked about alone. The tolerance is that of whole sets: 1e-4 of the
latents' deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch

from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.sampling.schedulers import step_arguments
from sdgrpc.diffusion.sampling.start import start
from sdgrpc.domain import GuidanceInterval, LoraRef, Scheduler, StepReuse, Task, TaskKind, Tiling
from tests.engine.sets.test_runner_by_hand import TOLERANCE, Bench
from tests.support.oracle import relative_difference
from tests.support.tasks import task

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

RED, BLUE, LONG = "a red star", "a blue circle", "a blue circle on green, " * 20
LORA = LoraRef(0.8, 0.4, name="diffusers")
Weighed = Sequence[tuple[str, float]]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("composed"))


@torch.inference_mode()
def by_hand(bench: Bench, asked: Task, said: Sequence[Weighed], scales: Sequence[float]) -> torch.Tensor:
    """A plain loop; `said` are the parts of each step, `scales` its guidance."""
    model = bench.fused(asked.loras)
    begun = start(model, asked, encode(model, "", ""))
    scheduler, latents = begun.scheduler, begun.latents
    arguments = step_arguments(scheduler, begun.generators, begun.eta)
    length = max(
        encode(model, text, asked.negative_prompt).token_count for parts in said for text, _ in parts
    )
    for index, timestep in enumerate(begun.timesteps):
        step = index // scheduler.order
        sample = scheduler.scale_model_input(latents, timestep).float()

        def predicted(text: str, sample: torch.Tensor = sample, at: torch.Tensor = timestep) -> torch.Tensor:
            told = encode(model, text, "x " * (length // 77 * 75)).positive  # filled to the longest
            return model.unet(sample, at, told, return_dict=False)[0].double()

        negative = predicted(asked.negative_prompt)
        towards = sum(weight * (predicted(text) - negative) for text, weight in said[step])
        guided = negative + scales[step] * towards
        if share := asked.sampling.guidance_rescale:
            guided = share * guided * ((negative + towards).std() / guided.std()) + (1 - share) * guided
        latents = scheduler.step(guided.float(), timestep, latents, **arguments, return_dict=False)[0]
    return latents.float()


@pytest.mark.parametrize("scheduler", [Scheduler.EULER, Scheduler.HEUN, Scheduler.DPMPP_2M])
def test_three_parts_with_weights(bench: Bench, scheduler: Scheduler) -> None:
    """One of which is edited, one kept away from, and one much longer than the rest."""
    prompt = f"{RED} :1.2 AND [{BLUE}:{RED}:2] :0.6 AND {LONG} :-0.3"
    asked = task(scheduler=scheduler, steps=4, prompt=prompt)
    said = [[(RED, 1.2), (BLUE if step < 2 else RED, 0.6), (LONG, -0.3)] for step in range(4)]
    drawn = bench.draw(asked)
    assert relative_difference(drawn.latents, by_hand(bench, asked, said, [3.0] * 4)) <= TOLERANCE
    equal = [[(text, 1.0) for text, _ in parts] for parts in said]
    assert relative_difference(drawn.latents, by_hand(bench, asked, equal, [3.0] * 4)) > 100 * TOLERANCE


@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.5, 0.5)], ids=["with the negative", "without"])
def test_guidance_of_one(bench: Bench, weights: tuple[float, float]) -> None:
    """The formula holds there too; where the weights add up to 1 the negative prompt is not in it."""
    parts = [*zip((RED, BLUE), weights, strict=True)]
    asked = task(steps=3, prompt=" AND ".join(f"{text} :{weight}" for text, weight in parts))
    asked = replace(asked, sampling=replace(asked.sampling, guidance_scale=1.0))
    drawn = bench.draw(asked).latents
    assert relative_difference(drawn, by_hand(bench, asked, [parts] * 3, [1.0] * 3)) <= TOLERANCE
    other = bench.draw(replace(asked, negative_prompt="something else")).latents
    assert torch.equal(drawn, other) == (sum(weights) == 1)


def test_rescaling_and_an_interval(bench: Bench) -> None:
    """Outside of the interval the scale is 1; what is rescaled has the deviation of the prompt at scale 1."""
    parts = [(RED, 1.0), (BLUE, 0.7)]
    interval = GuidanceInterval(0.25, 0.75)
    asked = task(
        steps=4,
        prompt=f"{RED} AND {BLUE} :0.7",
        guidance_scale=6.0,
        guidance_rescale=0.7,
        guidance_interval=interval,
    )
    scales = [6.0 if interval.holds(step, 4) else 1.0 for step in range(4)]
    assert set(scales) == {1.0, 6.0}
    drawn = bench.draw(asked).latents
    assert relative_difference(drawn, by_hand(bench, asked, [parts] * 4, scales)) <= TOLERANCE
    plain = replace(asked, sampling=replace(asked.sampling, guidance_rescale=0.0))
    assert relative_difference(drawn, bench.draw(plain).latents) > 100 * TOLERANCE


def test_a_lora_weights_of_words_and_one_part_twice(bench: Bench) -> None:
    """Parts are prompts like any other; two of one text are one of both weights."""
    word = "a (red:1.3) star"
    asked = task(steps=3, loras=(LORA,), prompt=f"{word} :0.4 AND {BLUE} AND {word} :0.6")
    said = [[(word, 1.0), (BLUE, 1.0)]] * 3
    assert relative_difference(bench.draw(asked).latents, by_hand(bench, asked, said, [3.0] * 3)) <= TOLERANCE


def test_forecasts_between_parts(bench: Bench) -> None:
    """What is forecast is the guided sum; a part that changes is asked about anew."""
    reuse = StepReuse(every=2)
    plain, composed, edited = (
        bench.draw(task(steps=8, prompt=prompt, step_reuse=reuse)).calls
        for prompt in (RED, f"{RED} AND {BLUE}", f"{RED} AND [{BLUE}:{RED}:4]")
    )
    assert plain == composed < edited < 8


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (TaskKind.GENERATE, {"tiling": Tiling(horizontal=True), "clip_skip": 1}),
        (TaskKind.GENERATE, {"image_count": 3, "guidance_interval": GuidanceInterval(0.0, 0.5)}),
        (TaskKind.TRANSFORM, {}),
        (TaskKind.INPAINT, {"negative_prompt": LONG}),
    ],
)
def test_two_halves_are_the_whole(bench: Bench, kind: TaskKind, changes: dict) -> None:
    """Parts of one text whose weights add up to 1 draw what it draws alone, in every kind of call."""
    whole = bench.draw(task(kind, steps=4, prompt=RED, **changes)).latents
    halves = bench.draw(task(kind, steps=4, prompt=f"{RED} :0.4 AND {RED} :0.6", **changes)).latents
    assert relative_difference(halves, whole) <= TOLERANCE
