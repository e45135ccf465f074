"""The generation parameters of a picture as one text, in the format of AUTOMATIC1111's web UI ("infotext").

a castle <lora:inks:0.8>
Negative prompt: people
Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model: v15, ...
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from sdgrpc import __version__
from sdgrpc.domain import LoraReport, ModelInfo, Scheduler, SigmaSpacing, Task, TaskKind

SAMPLER_NAMES: Mapping[Scheduler, str] = {
    Scheduler.EULER: "Euler",
    Scheduler.EULER_ANCESTRAL: "Euler a",
    Scheduler.HEUN: "Heun",
    Scheduler.DDIM: "DDIM",
    Scheduler.DDPM: "DDPM",
    Scheduler.PNDM: "PLMS",
    Scheduler.LMS: "LMS",
    Scheduler.DPMPP_2M: "DPM++ 2M",
    Scheduler.DPMPP_2M_SDE: "DPM++ 2M SDE",
    Scheduler.DPMPP_SDE: "DPM++ SDE",
    Scheduler.UNIPC: "UniPC",
    Scheduler.KDPM2: "DPM2",
    Scheduler.KDPM2_ANCESTRAL: "DPM2 a",
    Scheduler.DEIS: "DEIS",
    Scheduler.LCM: "LCM",
    Scheduler.TCD: "TCD",
}

SCHEDULE_TYPES: Mapping[SigmaSpacing, str] = {
    SigmaSpacing.DEFAULT: "Automatic",
    SigmaSpacing.KARRAS: "Karras",
    SigmaSpacing.EXPONENTIAL: "Exponential",
    SigmaSpacing.BETA: "Beta",
}


def parameters_text(task: Task, model: ModelInfo, reports: Sequence[LoraReport], seed: int) -> str:
    """Everything that is needed to draw the picture of `seed` again, its LoRAs with their hashes.

    `Lora hashes` holds the first 12 digits of each file's SHA-256.
    """
    tags = [lora_tag(report) for report in reports]
    lines = [" ".join([task.prompt, *tags])]
    if task.negative_prompt:
        lines.append(f"Negative prompt: {task.negative_prompt}")
    values = _values(task, model, reports, seed)
    lines.append(", ".join(f"{key}: {quoted(value)}" for key, value in values.items()))
    return "\n".join(lines)


def lora_tag(report: LoraReport) -> str:
    """`<lora:name:0.8>`, or with the text encoder's strength first where the two differ."""
    strengths = dict.fromkeys((report.text_encoder_strength, report.strength))
    return "".join(["<lora:", report.name, *(f":{strength:g}" for strength in strengths), ">"])


def quoted(value: object) -> str:
    """The value as text, in JSON's quotes if it holds a character of the format itself."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ",\n:") else text


def _values(task: Task, model: ModelInfo, reports: Sequence[LoraReport], seed: int) -> dict[str, str | int]:
    sampling = task.sampling
    values: dict[str, str | int] = {
        "Steps": sampling.steps,
        "Sampler": SAMPLER_NAMES[sampling.scheduler],
        "Schedule type": SCHEDULE_TYPES[sampling.sigma_spacing],
        "CFG scale": f"{sampling.guidance_scale:g}",
        "Seed": seed,
        "Size": f"{task.width}x{task.height}",
        "Model": model.name,
    }
    if task.kind is not TaskKind.GENERATE:
        values["Denoising strength"] = f"{task.strength:g}"
    if task.mask_options.blur:
        values["Mask blur"] = f"{task.mask_options.blur:g}"
    if task.mask_options.crop_padding is not None:
        values["Masked area padding"] = task.mask_options.crop_padding
    if sampling.clip_skip:
        values["Clip skip"] = sampling.clip_skip + 1
    if reports:
        values["Lora hashes"] = ", ".join(f"{report.name}: {report.sha256[:12]}" for report in reports)
    values["Version"] = f"sdgrpc {__version__}"
    return values
