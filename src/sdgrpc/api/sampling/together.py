"""What of a Sampling does not go together, or not with the model."""

from __future__ import annotations

from collections.abc import Container, Iterator

from sdgrpc.api.rules import Complaint
from sdgrpc.api.sampling.messages import guidance_interval, scheduler, spacing, timestep_spacing
from sdgrpc.domain import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    DRAWS_NOISE,
    FEWEST_STEPS_PER_EVERY,
    REFUSES_REUSE,
    REFUSES_SAMPLE_PREDICTION,
    SUPPORTED_SPACINGS,
    SUPPORTED_TIMESTEP_SPACINGS,
    ModelInfo,
    Scheduler,
    SigmaSpacing,
)
from sdgrpc.v1 import diffusion_pb2 as pb

MAX_SEED = 2**63 - 1  # as the contract's int64 and torch's generators hold them

_WHY_NOT = {
    Scheduler.LCM: "its few steps lie too far apart to be forecast",
    Scheduler.TCD: "its few steps lie too far apart to be forecast",
    Scheduler.LMS: "it magnifies what a forecast misses; take EULER, DPMPP_2M or UNIPC, or fewer steps",
}


def misfits(message: pb.Sampling, model: ModelInfo, wrong: Container[str]) -> Iterator[Complaint]:
    """Complain about what does not go together; `wrong` are the fields that have violations already."""
    if "scheduler" in wrong:
        return
    chosen = scheduler(message, model)
    if model.prediction_type == "sample" and chosen in REFUSES_SAMPLE_PREDICTION:
        others = ", ".join(each.name for each in Scheduler if each not in REFUSES_SAMPLE_PREDICTION)
        yield ".scheduler", f"{chosen.name} has no formula for a model that predicts the sample; use {others}"
    if "sigma_spacing" not in wrong:
        yield from _sigma_spacing(message, chosen)
        if "timestep_spacing" not in wrong:
            yield from _timestep_spacing(message, chosen, model)
    asked = {"eta": message.HasField("eta"), "gamma": message.HasField("gamma")}
    for field, having in (("eta", DEFAULT_ETA), ("gamma", DEFAULT_GAMMA)):
        if asked[field] and chosen not in having and field not in wrong:
            names = ", ".join(each.name for each in having)
            yield f".{field}", f"the scheduler {chosen.name} has no {field}; it belongs to {names}"
    if "steps" not in wrong:
        yield from _work(message, chosen, message.steps or model.steps, wrong)


def seed_faults(message: pb.Sampling) -> Iterator[Complaint]:
    """The last image's seed is a seed, too; what is varied is the other seed."""
    last, field = message.seed, ".seed"
    if message.HasField("variation"):
        varied = message.variation
        last, field = (varied.seed if varied.HasField("seed") else last + 1), ".variation.seed"
    if last + max(message.image_count, 1) - 1 > MAX_SEED:
        yield field, f"{last} leaves no seeds for {message.image_count} images"


def _work(message: pb.Sampling, chosen: Scheduler, steps: int, wrong: Container[str]) -> Iterator[Complaint]:
    """Intervals hold a step, and forecasts need schedules of small steps."""
    interval = guidance_interval(message)
    if interval is not None and "guidance_interval" not in wrong and interval.is_empty(steps):
        yield (
            ".guidance_interval",
            f"none of {steps} steps lies in it; widen it, or set guidance_scale to 1",
        )
    if not message.HasField("step_reuse") or "step_reuse" in wrong:
        return
    if chosen in REFUSES_REUSE:
        yield ".step_reuse", f"the scheduler {chosen.name} gains nothing by it: {_WHY_NOT[chosen]}"
        return
    reuse = message.step_reuse
    if reuse.every > 2 and _draws_noise(message, chosen):
        yield (
            ".step_reuse.every",
            f"{chosen.name} draws noise, over which only every second step is forecast: 2",
        )
    if reuse.order > 1 and _draws_noise(message, chosen):
        yield ".step_reuse.order", f"{chosen.name} draws noise, which a parabola magnifies; set 1"
    every = reuse.every
    if steps < FEWEST_STEPS_PER_EVERY * every:
        yield (
            ".step_reuse",
            f"{steps} steps lie too far apart for `every` {every}, which needs "
            f"{FEWEST_STEPS_PER_EVERY * every} at least",
        )


def _draws_noise(message: pb.Sampling, chosen: Scheduler) -> bool:
    """Whether the steps do: the ancestral schedulers' and DDIM's as eta says."""
    return message.eta > 0 if message.HasField("eta") else chosen in DRAWS_NOISE


def _sigma_spacing(message: pb.Sampling, chosen: Scheduler) -> Iterator[Complaint]:
    """Not every scheduler can space its noise levels otherwise."""
    wanted, supported = spacing(message), SUPPORTED_SPACINGS[chosen]
    if wanted not in supported:
        choices = ", ".join(sorted(each.name for each in supported))
        yield (
            ".sigma_spacing",
            f"{wanted.name} is not supported by the scheduler {chosen.name}, which takes: {choices}",
        )


def _timestep_spacing(message: pb.Sampling, chosen: Scheduler, model: ModelInfo) -> Iterator[Complaint]:
    """Timesteps follow from noise levels where those are spaced; and PNDM needs even ones."""
    wanted, levels = timestep_spacing(message, model), spacing(message)
    if wanted is None:
        return
    if levels is not SigmaSpacing.DEFAULT:
        yield (
            ".timestep_spacing",
            f"{wanted.name} cannot be used beside sigma_spacing {levels.name}, from which the timesteps "
            "follow; set one of the two",
        )
    elif wanted not in (supported := SUPPORTED_TIMESTEP_SPACINGS[chosen]):
        choices = ", ".join(sorted(each.name for each in supported))
        yield (
            ".timestep_spacing",
            f"{wanted.name} is not supported by the scheduler {chosen.name}, which takes: {choices}",
        )
