"""Sampling that a LoRA file was made for, and what of a request does not fit it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sdgrpc.domain.sampling import Sampling, Scheduler, TimestepSpacing

# Their own timesteps are counted from the noisiest too.
TRAILING_OF_THEIR_OWN = frozenset({Scheduler.LCM, Scheduler.TCD})


@dataclass(frozen=True, slots=True)
class RecommendedSampling:
    """What to begin with, and what fits too; 0, None or empty where any will do.

    `kind` is the method by which the file was distilled, `prediction_type` that of the model that it was
    trained on.
    """

    kind: str = ""
    steps: int = 0
    steps_min: int = 0
    steps_max: int = 0
    guidance_scale: float | None = None
    guidance_scale_max: float | None = None
    scheduler: Scheduler | None = None
    other_schedulers: tuple[Scheduler, ...] = ()
    timestep_spacing: TimestepSpacing | None = None
    prediction_type: str = ""

    @property
    def text(self) -> str:
        """For people: `Lightning: 4 steps, guidance 1, scheduler euler, trailing`."""
        parts = []
        if self.steps:
            alone = self.steps_min == self.steps_max
            counts = f"{self.steps}" if alone else f"{self.steps_min} to {self.steps_max}"
            parts.append(f"{counts} step{'' if counts == '1' else 's'}")
        if self.guidance_scale is not None:
            most = self.guidance_scale_max or self.guidance_scale
            upto = f" to {most:g}" if most > self.guidance_scale else ""
            parts.append(f"guidance {self.guidance_scale:g}{upto}")
        if self.scheduler is not None:
            parts.append(f"scheduler {self.scheduler.value}")
        if self.timestep_spacing is not None:
            parts.append(self.timestep_spacing.value)
        if self.prediction_type:
            parts.append(f"models that predict {self.prediction_type}")
        told = ", ".join(parts)
        return f"{self.kind}: {told}" if self.kind and told else told

    def warnings(self, sampling: Sampling, prediction_type: str, *, trails: bool) -> tuple[str, ...]:
        """Say what does not fit; `trails` tells whether the model's own timesteps are trailing ones."""
        unfit = [*self._unfit(sampling, trails=trails)]
        if self.prediction_type not in ("", prediction_type):
            unfit.append(f"a model that predicts {prediction_type}")
        return (f"made for {self.text}; this request has {', '.join(unfit)}",) if unfit else ()

    def _unfit(self, sampling: Sampling, *, trails: bool) -> Iterator[str]:
        if self.steps and not self.steps_min <= sampling.steps <= self.steps_max:
            yield f"{sampling.steps} step{'' if sampling.steps == 1 else 's'}"
        if self.guidance_scale is not None:
            most = self.guidance_scale_max or self.guidance_scale
            if not self.guidance_scale <= sampling.guidance_scale <= most:
                yield f"guidance {sampling.guidance_scale:g}"
        if self.scheduler is not None and sampling.scheduler not in (self.scheduler, *self.other_schedulers):
            yield f"scheduler {sampling.scheduler.value}"
        if self.timestep_spacing is not None and not self._spaced(sampling, trails=trails):
            spacing = sampling.timestep_spacing or sampling.sigma_spacing
            yield f"{spacing.value} spacing"

    def _spaced(self, sampling: Sampling, *, trails: bool) -> bool:
        if sampling.steps == 1 or sampling.timestep_spacing is self.timestep_spacing:
            return True
        own = trails or sampling.scheduler in TRAILING_OF_THEIR_OWN
        return sampling.timestep_spacing is None and own
