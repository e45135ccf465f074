"""What of a Sampling does not go together, or not with the model."""

from __future__ import annotations

from collections.abc import Container, Iterator

from sdgrpc.api.rules import Complaint
from sdgrpc.api.sampling.messages import scheduler, spacing, timestep_spacing
from sdgrpc.domain import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    REFUSES_SAMPLE_PREDICTION,
    SUPPORTED_SPACINGS,
    SUPPORTED_TIMESTEP_SPACINGS,
    ModelInfo,
    Scheduler,
    SigmaSpacing,
)
from sdgrpc.v1 import diffusion_pb2 as pb


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
