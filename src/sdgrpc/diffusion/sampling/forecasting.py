"""Predictions that are forecast from those before them instead of asked of the UNet."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from sdgrpc.domain.sampling import StepReuse


class Forecaster:
    """Says in which of a job's steps the UNet is asked, and forecasts the predictions of the others.

    A forecast is the value at a timestep of the polynomial through the last `order + 1` exact predictions of
    one guidance scale, each at another timestep: Lagrange's form, a sum of predictions with weights that need
    no solving. Schedulers visit some timesteps twice; of two predictions at one timestep the later counts.
    """

    def __init__(self, reuse: StepReuse | None, step_count: int) -> None:
        self._reuse, self._step_count = reuse, step_count
        self._asked: object = None
        self._since = 0
        self._exact: list[tuple[float, torch.Tensor]] = []

    def asks(self, step: int, asked: object) -> bool:
        """Whether an evaluation of step `step`, from 0, is the UNet's; `asked` is equal where it asks alike.

        A step of two evaluations is exact or forecast as a whole: noise may lie between it and the next.
        Guided predictions tell nothing of those for the prompt alone, nor those of one LoRA set of another's:
        where one follows the other, the first two steps are the UNet's again. It is decided by the steps
        alone, so that it can be told before there is any prediction.
        """
        if asked != self._asked:
            self._asked, self._since, self._exact = asked, step, []
        return self._reuse is None or self._reuse.asks(step, self._step_count, self._since)

    def note(self, timestep: float, prediction: torch.Tensor) -> None:
        """Keep what the UNet predicted, `[n, 4, h, w]`, for as long as a forecast may need it."""
        if self._reuse is None:
            return
        others = [one for one in self._exact if one[0] != timestep]
        self._exact = [*others, (timestep, prediction)][-self._reuse.order - 1 :]

    def forecast(self, timestep: float) -> torch.Tensor:
        """Return what the UNet would predict at a timestep, `[n, 4, h, w]`, by those it made."""
        shares = weights([known for known, _ in self._exact], timestep)
        terms = [share * prediction for share, (_, prediction) in zip(shares, self._exact, strict=True)]
        return torch.stack(terms).sum(0)


def weights(known: Sequence[float], wanted: float) -> list[float]:
    """Return the share of each value at `known`, which differ, in their polynomial's value at `wanted`."""
    return [math.prod((wanted - other) / (one - other) for other in known if other != one) for one in known]
