"""How to denoise: schedulers, their spacings, and the values of one task."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to denoise; every default is filled in."""

    steps: int
    guidance_scale: float
    scheduler: Scheduler
    sigma_spacing: SigmaSpacing
    seed: int
    image_count: int = 1
    clip_skip: int = 0
