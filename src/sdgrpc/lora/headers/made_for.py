"""What sampling a LoRA file was distilled or trained for: by its metadata, its name and its tensors."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from sdgrpc.domain import RecommendedSampling, Scheduler, TimestepSpacing

# Where a file's name, or the name that its author gave it, says it. Descriptions name other files, too.
TITLES = ("modelspec.title", "ss_output_name", "name")
TRAINED = ("ss_network_module", "ss_tag_frequency", "ss_num_epochs")
STEPS = re.compile(r"(?<![0-9])(\d{1,2})[-_ ]?steps?(?![a-z])")
DISTILLED_RANK = 64

_TRAILING = TimestepSpacing.TRAILING
# As the authors' own model cards have them; the first whose words are in the name.
KINDS: tuple[tuple[re.Pattern[str], RecommendedSampling], ...] = (
    (
        re.compile(r"hyper[-_ ]?sd|hyper[-_ ]?\d"),
        RecommendedSampling(
            "Hyper-SD",
            8,
            1,
            8,
            1.0,
            1.0,
            Scheduler.DDIM,
            (Scheduler.TCD, Scheduler.EULER, Scheduler.LCM),
            _TRAILING,
        ),
    ),
    (
        re.compile(r"(sdxl|xl)[-_ ]?lightning|lightning[-_ ]?(lora|\d)|\d[-_ ]?steps?[-_ ]?lightning"),
        RecommendedSampling("Lightning", 4, 1, 8, 1.0, 1.0, Scheduler.EULER, (Scheduler.DDIM,), _TRAILING),
    ),
    (
        re.compile(r"(?<![a-z])dmd2?(?![a-z])"),
        RecommendedSampling("DMD2", 4, 1, 8, 1.0, 1.0, Scheduler.LCM, (Scheduler.EULER,), _TRAILING),
    ),
    (
        re.compile(r"(?<![a-z])tcd(?![a-z])"),
        RecommendedSampling("TCD", 4, 2, 50, 1.0, 1.0, Scheduler.TCD),
    ),
    (
        re.compile(r"(?<![a-z])lcm(?![a-z])"),
        RecommendedSampling("LCM", 4, 2, 8, 1.0, 2.0, Scheduler.LCM),
    ),
    (
        re.compile(r"(sd|xl|1\.5|15|21)[-_ ]?turbo|turbo[-_ ]?(lora|sd|\d)"),
        RecommendedSampling(
            "Turbo", 4, 1, 8, 1.0, 2.0, Scheduler.EULER_ANCESTRAL, (Scheduler.EULER, Scheduler.LCM), _TRAILING
        ),
    ),
)
UNNAMED = RecommendedSampling("few steps, by its tensors", 4, 1, 8, 1.0, 2.0)


def made_for(
    name: str,
    metadata: Mapping[str, str] = MappingProxyType({}),
    paths: Collection[str] = (),
    ranks: Collection[int | None] = (),
) -> RecommendedSampling | None:
    """Return what a file was made for; None where it does not tell.

    Args:
        name: of the file.
        metadata: its own.
        paths: of the modules that it changes, text encoders' with a component before them.
        ranks: of these modules.

    """
    titles = " ".join([name, *(metadata.get(key, "") for key in TITLES)]).lower()
    found = next((kind for words, kind in KINDS if words.search(titles)), None)
    if found is not None:
        found = _with_steps(found, titles)
    elif _looks_distilled(metadata, paths, ranks):
        found = UNNAMED
    predicted = prediction_type(metadata)
    if found is None:
        return RecommendedSampling(prediction_type=predicted) if predicted == "v_prediction" else None
    return replace(found, prediction_type=predicted if predicted == "v_prediction" else "")


def _with_steps(kind: RecommendedSampling, titles: str) -> RecommendedSampling:
    """Files for a number of steps say it in their name; Hyper-SD's with guidance do so too."""
    counted = STEPS.search(titles)
    if counted is not None and 1 <= int(counted[1]) <= 50:
        steps = int(counted[1])
        kind = replace(kind, steps=steps, steps_min=steps, steps_max=steps)
    if kind.kind == "Hyper-SD" and "cfg" in titles:
        kind = replace(kind, guidance_scale=5.0, guidance_scale_max=8.0)
    return kind


def _looks_distilled(
    metadata: Mapping[str, str], paths: Collection[str], ranks: Collection[int | None]
) -> bool:
    """The published distilled files have one rank, change time embeddings and no text encoder.

    Trainers of styles write what they did into the metadata; the distillers' scripts write nothing.
    """
    trained = any(key in metadata for key in TRAINED)
    timed = any("time_emb_proj" in path for path in paths)
    texts = any("text_encoder" in path for path in paths)
    return timed and not texts and not trained and set(ranks) == {DISTILLED_RANK}


def prediction_type(metadata: Mapping[str, str]) -> str:
    """What the model predicts that a file was trained on: `epsilon`, `v_prediction`, or empty."""
    stated = metadata.get("modelspec.prediction_type", "").lower()
    if stated in ("v", "v_prediction", "epsilon"):
        return "epsilon" if stated == "epsilon" else "v_prediction"
    told = metadata.get("ss_v_parameterization", "").lower()
    return {"true": "v_prediction", "false": "epsilon"}.get(told, "")
