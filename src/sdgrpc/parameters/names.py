"""What A1111's web UI calls samplers and schedules, in all its versions -> ours."""

from __future__ import annotations

from collections.abc import Mapping

from sdgrpc.domain import MaskedContent, ResizeMode, Scheduler, SigmaSpacing, TimestepSpacing
from sdgrpc.parameters.writing import (
    MASKED_CONTENTS,
    RESIZE_MODES,
    SAMPLER_NAMES,
    SCHEDULE_TYPES,
    TIMESTEP_SCHEDULE_TYPES,
)

SAMPLERS: Mapping[str, Scheduler] = {name.lower(): scheduler for scheduler, name in SAMPLER_NAMES.items()} | {
    "k_euler": Scheduler.EULER,
    "k_euler_a": Scheduler.EULER_ANCESTRAL,
    "euler ancestral": Scheduler.EULER_ANCESTRAL,
    "k_dpmpp_2m": Scheduler.DPMPP_2M,
    "pndm": Scheduler.PNDM,
}

SPACINGS: Mapping[str, SigmaSpacing] = {name.lower(): spacing for spacing, name in SCHEDULE_TYPES.items()} | {
    "uniform": SigmaSpacing.DEFAULT
}

TIMESTEP_SPACINGS: Mapping[str, TimestepSpacing] = {
    name.lower(): spacing for spacing, name in TIMESTEP_SCHEDULE_TYPES.items()
} | {"simple": TimestepSpacing.TRAILING}

AUTOMATIC = SCHEDULE_TYPES[SigmaSpacing.DEFAULT].lower()

# What `Automatic` means in the web UI since its version 1.9 (`modules/sd_samplers_kdiffusion.py`).
AUTOMATIC_SPACINGS: Mapping[Scheduler, SigmaSpacing] = {
    Scheduler.DPMPP_2M: SigmaSpacing.KARRAS,
    Scheduler.DPMPP_SDE: SigmaSpacing.KARRAS,
    Scheduler.DPMPP_2M_SDE: SigmaSpacing.EXPONENTIAL,
    Scheduler.KDPM2: SigmaSpacing.KARRAS,
    Scheduler.KDPM2_ANCESTRAL: SigmaSpacing.KARRAS,
}

CONTENTS: Mapping[str, MaskedContent] = {name: content for content, name in MASKED_CONTENTS.items()}

RESIZES: Mapping[str, ResizeMode] = {name.lower(): mode for mode, name in RESIZE_MODES.items()}


def split_sampler(name: str) -> tuple[str, str]:
    """Part `DPM++ 2M Karras`, as it was written before version 1.9, into the sampler and its schedule."""
    sampler, _, schedule = name.rpartition(" ")
    is_old = sampler and schedule.lower() in SPACINGS and schedule.lower() != AUTOMATIC
    return (sampler, schedule) if is_old else (name, "")
