"""The scheduler configurations that the base models were published with, and what files say of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# The published scheduler configurations share these.
_NOISE: Mapping[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
}


def published(base: str, prediction_type: str, *, zero_snr: bool) -> dict[str, Any]:
    """The scheduler configuration that the base was published with.

    `zero_snr` rescales the noise to a zero signal at the last step, from where steps then count
    (https://arxiv.org/abs/2305.08891).
    """
    config = dict(_NOISE) | {"_class_name": "PNDMScheduler", "prediction_type": prediction_type}
    if base == "sdxl":
        config |= {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"}
    if zero_snr:
        config |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    if prediction_type == "v_prediction" and base != "sdxl":
        config["_class_name"] = "DDIMScheduler"
    return config


def stated_prediction_type(metadata: Mapping[str, str], names: Iterable[str]) -> str | None:
    """`epsilon` or `v_prediction` where the file says so, None where it does not.

    Read are `modelspec.prediction_type` (Stability AI's model metadata standard), kohya's
    `ss_v_parameterization`, and the empty tensor `v_pred` by which merging tools mark files.
    """
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in {"v", "v_prediction", "epsilon"}:
        return "epsilon" if stated == "epsilon" else "v_prediction"
    if "v_pred" in set(names) or metadata.get("ss_v_parameterization", "").lower() == "true":
        return "v_prediction"
    return "epsilon" if metadata.get("ss_v_parameterization", "").lower() == "false" else None
