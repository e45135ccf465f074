"""How to denoise: schedulers, their spacings, and the values of one task."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Scheduler(Enum):
    """The samplers of the contract; the values are its enum names without the prefix, in lower case."""

    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    HEUN = "heun"
    DDIM = "ddim"
    DDPM = "ddpm"
    PNDM = "pndm"
    LMS = "lms"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_SDE = "dpmpp_sde"
    UNIPC = "unipc"
    KDPM2 = "kdpm2"
    KDPM2_ANCESTRAL = "kdpm2_ancestral"
    DEIS = "deis"
    LCM = "lcm"
    TCD = "tcd"


class SigmaSpacing(Enum):
    """How the noise levels of a schedule are spaced."""

    DEFAULT = "default"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"


class TimestepSpacing(Enum):
    """At which training timesteps the steps of a schedule are; see `TimestepSpacing` of the contract."""

    LEADING = "leading"
    LINSPACE = "linspace"
    TRAILING = "trailing"
    ALIGN_YOUR_STEPS = "align_your_steps"


_ALL_SPACINGS = frozenset(SigmaSpacing)
_DEFAULT_SPACING = frozenset({SigmaSpacing.DEFAULT})

# The spacings that each scheduler can use; a test compares it with what diffusers' classes take.
SUPPORTED_SPACINGS: Mapping[Scheduler, frozenset[SigmaSpacing]] = {
    Scheduler.EULER: _ALL_SPACINGS,
    Scheduler.EULER_ANCESTRAL: _DEFAULT_SPACING,
    Scheduler.HEUN: _ALL_SPACINGS,
    Scheduler.DDIM: _DEFAULT_SPACING,
    Scheduler.DDPM: _DEFAULT_SPACING,
    Scheduler.PNDM: _DEFAULT_SPACING,
    Scheduler.LMS: _ALL_SPACINGS,
    Scheduler.DPMPP_2M: _ALL_SPACINGS,
    Scheduler.DPMPP_2M_SDE: _ALL_SPACINGS,
    Scheduler.DPMPP_SDE: _ALL_SPACINGS,
    Scheduler.UNIPC: _ALL_SPACINGS,
    Scheduler.KDPM2: _ALL_SPACINGS,
    Scheduler.KDPM2_ANCESTRAL: _ALL_SPACINGS,
    Scheduler.DEIS: _ALL_SPACINGS,
    Scheduler.LCM: _DEFAULT_SPACING,
    Scheduler.TCD: _DEFAULT_SPACING,
}

# PNDM's multistep formula holds between timesteps that are evenly spaced, which the published tables are not.
SUPPORTED_TIMESTEP_SPACINGS: Mapping[Scheduler, frozenset[TimestepSpacing]] = {
    scheduler: frozenset(TimestepSpacing)
    - (frozenset({TimestepSpacing.ALIGN_YOUR_STEPS}) if scheduler is Scheduler.PNDM else frozenset())
    for scheduler in Scheduler
}

# Eta of the schedulers that have it: the share of the noise that a step takes away and draws anew.
DEFAULT_ETA: Mapping[Scheduler, float] = {
    Scheduler.DDIM: 0.0,
    Scheduler.EULER_ANCESTRAL: 1.0,
    Scheduler.KDPM2_ANCESTRAL: 1.0,
}
# TCD's own measure of the same, which its paper calls gamma.
DEFAULT_GAMMA: Mapping[Scheduler, float] = {Scheduler.TCD: 0.0}

# Schedulers without a formula for models that predict the clean sample.
REFUSES_SAMPLE_PREDICTION = frozenset(
    {Scheduler.EULER_ANCESTRAL, Scheduler.PNDM, Scheduler.KDPM2, Scheduler.KDPM2_ANCESTRAL}
)


DEFAULT_REUSE_ORDER = 1
# A polynomial needs two points at least.
EXACT_AT_FIRST = 2
NUMBER = r"[0-9]{1,3}(\.[0-9]{1,20})?(e-[0-9]{1,2})?"
# Steps of these draw noise, unless an eta of 0 says otherwise: more than one forecast in a row, or a
# parabola, magnifies it until plain fewer steps are nearer.
DRAWS_NOISE = frozenset(
    {
        Scheduler.EULER_ANCESTRAL,
        Scheduler.KDPM2_ANCESTRAL,
        Scheduler.DDPM,
        Scheduler.DPMPP_SDE,
        Scheduler.DPMPP_2M_SDE,
    }
)
# Fewer steps lie too far apart to forecast from one to the other; LCM and TCD are made for few. LMS weighs up
# to four predictions against each other, and forecasts come out no better than as many plain steps.
FEWEST_STEPS_PER_EVERY = 6
REFUSES_REUSE = frozenset({Scheduler.LCM, Scheduler.TCD, Scheduler.LMS})


@dataclass(frozen=True, slots=True)
class GuidanceInterval:
    """The steps that are guided, as shares of all steps of the schedule (https://arxiv.org/abs/2404.07724)."""

    start: float
    end: float

    def holds(self, step: int, steps: int) -> bool:
        """Tell whether step `step`, from 0, of `steps` is guided; as diffusers' guiders round."""
        return int(self.start * steps) <= step < int(self.end * steps)

    def is_empty(self, steps: int) -> bool:
        """Tell whether none of `steps` steps is guided."""
        return int(self.start * steps) >= int(self.end * steps)

    @classmethod
    def parse(cls, text: str) -> GuidanceInterval:
        """Read what `str` writes, `0.1:0.8`; raises ValueError."""
        if not re.fullmatch(rf"{NUMBER}:{NUMBER}", text):
            raise ValueError(f"{text}: write START:END, two numbers from 0 to 1, as in 0.1:0.8")
        start, _, end = text.partition(":")
        return cls(float(start), float(end))

    def __str__(self) -> str:
        return f"{self.start!r}:{self.end!r}"


@dataclass(frozen=True, slots=True)
class StepReuse:
    """Which steps ask the UNet, and the order of the polynomial that forecasts the others' predictions."""

    every: int
    order: int = DEFAULT_REUSE_ORDER

    def asks(self, step: int, count: int, since: int = 0) -> bool:
        """Tell whether a step, from 0, of `count` asks: two from `since` on, each `every`-th, the last."""
        return step - since < EXACT_AT_FIRST or step % self.every == 0 or step == count - 1

    @classmethod
    def parse(cls, text: str) -> StepReuse:
        """Read what `str` writes, `2:1`, or the first number alone; raises ValueError."""
        if not re.fullmatch(r"[0-9]{1,3}(:[0-9]{1,3})?", text, re.ASCII):
            raise ValueError(f"{text}: write EVERY or EVERY:ORDER, whole numbers, as in 2 or 2:1")
        every, _, order = text.partition(":")
        return cls(int(every), int(order or DEFAULT_REUSE_ORDER))

    def __str__(self) -> str:
        return f"{self.every}:{self.order}"


@dataclass(frozen=True, slots=True)
class Variation:
    """Another seed, the next one for None, and how far the noise to start from goes towards it."""

    strength: float
    seed: int | None = None

    @classmethod
    def parse(cls, text: str) -> Variation:
        """Read what `str` writes, `0.2:99`, or the strength alone; raises ValueError."""
        if not re.fullmatch(rf"{NUMBER}(:[0-9]{{1,19}})?", text, re.ASCII):
            raise ValueError(f"{text}: write STRENGTH or STRENGTH:SEED, as in 0.2 or 0.2:99")
        strength, _, seed = text.partition(":")
        return cls(float(strength), int(seed) if seed else None)

    def __str__(self) -> str:
        return repr(self.strength) if self.seed is None else f"{self.strength!r}:{self.seed}"


@dataclass(frozen=True, slots=True)
class Tiling:
    """Which opposite edges of a picture fit."""

    horizontal: bool = False
    vertical: bool = False

    def __bool__(self) -> bool:
        return self.horizontal or self.vertical

    @classmethod
    def parse(cls, text: str) -> Tiling:
        """Read what `str` writes; raises ValueError."""
        if text.lower() not in TILINGS:
            raise ValueError(f"{text}: write both, horizontal or vertical")
        return TILINGS[text.lower()]

    def __str__(self) -> str:
        return next((name for name, tiling in TILINGS.items() if tiling == self), "none")


TILINGS: Mapping[str, Tiling] = {
    "both": Tiling(True, True),
    "horizontal": Tiling(horizontal=True),
    "vertical": Tiling(vertical=True),
    "true": Tiling(True, True),
}
"""How each is written; the last is the web UI's."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to denoise; every default is filled in.

    `timestep_spacing` None is the scheduler's own for the model. `eta` and `gamma` are None where the
    scheduler has no such thing. `guidance_interval` None guides everywhere, `step_reuse` None
    forecasts nothing. `variation` has a seed here, or is None. `late_start` is the share of the schedule that
    may run before LoRAs are there.
    """

    steps: int
    guidance_scale: float
    scheduler: Scheduler
    sigma_spacing: SigmaSpacing
    seed: int
    image_count: int = 1
    clip_skip: int = 0
    timestep_spacing: TimestepSpacing | None = None
    guidance_rescale: float = 0.0
    eta: float | None = None
    gamma: float | None = None
    guidance_interval: GuidanceInterval | None = None
    step_reuse: StepReuse | None = None
    variation: Variation | None = None
    tiling: Tiling = Tiling()
    late_start: float = 0.0

    def seed_of(self, image: int) -> int:
        """Return the seed of an image of the request; variations have one in common."""
        return self.seed if self.variation is not None else self.seed + image
