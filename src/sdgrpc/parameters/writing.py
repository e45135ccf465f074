"""The generation parameters of a picture as one text, in the format of AUTOMATIC1111's web UI ("infotext").

a castle <lora:inks:0.8>
Negative prompt: people
Steps: 20, Sampler: Euler a, Schedule type: Karras, CFG scale: 7, Seed: 42, Size: 512x512, Model: v15, ...
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sdgrpc import __version__
from sdgrpc.domain import (
    DEFAULT_ETA,
    DEFAULT_GAMMA,
    Decoder,
    LoraReport,
    MaskedContent,
    ModelInfo,
    ResizeMode,
    Sampling,
    Scheduler,
    SecondPass,
    SecondPassMode,
    SigmaSpacing,
    Task,
    TaskKind,
    Tiling,
    TimestepSpacing,
)
from sdgrpc.parameters.values import NEGATIVE, joined, sections
from sdgrpc.prompting.tags import BLANKS, LoraTag, decimal

OURS = "sdgrpc"
"""What `Version` begins with in our own pictures."""

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

# A1111 has one list for both spacings; its `Uniform` is its `Normal`, its `Simple` close to `SGM Uniform`.
TIMESTEP_SCHEDULE_TYPES: Mapping[TimestepSpacing, str] = {
    TimestepSpacing.LEADING: "DDIM",
    TimestepSpacing.LINSPACE: "Normal",
    TimestepSpacing.TRAILING: "SGM Uniform",
    TimestepSpacing.ALIGN_YOUR_STEPS: "Align Your Steps",
}


RESIZE_MODES: Mapping[ResizeMode, str] = {
    ResizeMode.STRETCH: "Just resize",
    ResizeMode.CROP: "Crop and resize",
    ResizeMode.PAD: "Resize and fill",
}


MASKED_CONTENTS: Mapping[MaskedContent, str] = {
    MaskedContent.ORIGINAL: "original",
    MaskedContent.FILL: "fill",
    MaskedContent.NOISE: "latent noise",
    MaskedContent.NOTHING: "latent nothing",
}


HIRES_UPSCALERS: Mapping[SecondPassMode, str] = {
    SecondPassMode.LATENT: "Latent",
    SecondPassMode.PIXEL: "Lanczos",
}
"""What the web UI calls them, where no upscaler is named."""


def parameters_text(
    task: Task,
    model: ModelInfo,
    reports: Sequence[LoraReport],
    seed: int,
    *,
    model_sha256: str = "",
    image: int = 0,
    embeddings: Sequence[tuple[str, str]] = (),
) -> str:
    """Everything that is needed to draw image `image`, of `seed`, again, its LoRAs with their hashes.

    `Model hash` and `Lora hashes` are as the web UI writes them: the first 10 digits of the file's SHA-256,
    and `LoraReport.autov3`; so are `TI hashes` of `embeddings`, textual inversions with their files' SHA-256,
    12 digits of it. The full SHA-256 stand beside. A prompt that a reader would not get back from
    its lines, as one with a line `Negative prompt:`, stands in `Raw prompt` or `Raw negative prompt` too.
    """
    prompt = " ".join([task.prompt, *map(lora_tag, reports)])
    lines = [prompt]
    if task.negative_prompt:
        lines.append(f"{NEGATIVE} {task.negative_prompt}")
    values = _values(task, model, reports, seed, model_sha256) | _varied(task.sampling, image)
    values |= _learned(embeddings)
    found = sections("\n".join([*lines, joined(values)]))
    if found.prompt != prompt.strip(BLANKS):
        values["Raw prompt"] = prompt
    if found.negative_prompt != task.negative_prompt.strip(BLANKS):
        values["Raw negative prompt"] = task.negative_prompt
    values["Version"] = f"{OURS} {__version__}"
    return "\n".join([*lines, joined(values)])


def lora_tag(report: LoraReport) -> str:
    """`<lora:name:0.8>`, or with `te=` and `unet=` where the two differ, `lbw=`, `start=` and `end=`."""
    blocks = str(report.block_weights)
    strengths = report.strength, report.text_encoder_strength
    return str(LoraTag(report.name, *strengths, blocks, report.start, report.end))


def _values(
    task: Task, model: ModelInfo, reports: Sequence[LoraReport], seed: int, model_sha256: str
) -> dict[str, str | int]:
    sampling = task.sampling
    values: dict[str, str | int] = {
        "Steps": sampling.steps,
        "Sampler": SAMPLER_NAMES[sampling.scheduler],
        "Schedule type": _schedule_type(sampling),
        "CFG scale": decimal(sampling.guidance_scale),
        "Seed": seed,
        "Size": f"{task.width}x{task.height}",
    }
    if model_sha256:
        values["Model hash"] = model_sha256[:10]
    values["Model"] = model.name
    if task.kind is not TaskKind.GENERATE:
        values["Denoising strength"] = decimal(task.strength)
    values |= _second_pass(task.second_pass)
    if task.resize_mode is not ResizeMode.STRETCH:
        values["Resize mode"] = RESIZE_MODES[task.resize_mode]
    if task.mask_options.blur:
        values["Mask blur"] = decimal(task.mask_options.blur)
    if task.mask_options.crop_padding is not None:
        values["Masked area padding"] = task.mask_options.crop_padding
    values |= _masked(task)
    if task.output.decoder is Decoder.TINY:
        values["VAE Decoder"] = "TAESD"
    values |= _noise(sampling)
    if sampling.clip_skip:
        values["Clip skip"] = sampling.clip_skip + 1
    if reports:
        names = [without_marks(report.name) for report in reports]
        short = [f"{name}: {report.autov3}" for name, report in zip(names, reports, strict=True)]
        full = [f"{name}: {report.sha256}" for name, report in zip(names, reports, strict=True)]
        values |= {"Lora hashes": ", ".join(short), "Lora SHA-256": ", ".join(full)}
    if model_sha256:
        values["Model SHA-256"] = model_sha256
    return values


def _second_pass(second: SecondPass | None) -> dict[str, str | int]:
    """What the web UI calls "Hires. fix"; its steps are those of the whole schedule here."""
    if second is None:
        return {}
    size = f"{second.width}x{second.height}"
    return {
        "Denoising strength": decimal(second.strength),
        **({"Hires upscale": decimal(second.scale)} if second.scale else {"Hires resize": size}),
        "Hires steps": second.steps,
        "Hires upscaler": second.upscaler or HIRES_UPSCALERS[second.mode],
    }


def _learned(embeddings: Sequence[tuple[str, str]]) -> dict[str, str]:
    """The textual inversions that were used."""
    if not embeddings:
        return {}
    named = [(without_marks(name), sha256) for name, sha256 in embeddings]
    return {
        "TI hashes": ", ".join(f"{name}: {sha256[:12]}" for name, sha256 in named),
        "TI SHA-256": ", ".join(f"{name}: {sha256}" for name, sha256 in named),
    }


def _varied(sampling: Sampling, image: int) -> dict[str, str | int]:
    """The seed that a picture was varied towards, and which of its edges fit."""
    values: dict[str, str | int] = {}
    if sampling.variation is not None and sampling.variation.seed is not None:
        values["Variation seed"] = sampling.variation.seed + image
        values["Variation seed strength"] = decimal(sampling.variation.strength)
    if sampling.tiling:
        values["Tiling"] = "True" if sampling.tiling == Tiling(True, True) else str(sampling.tiling)
    return values


def _masked(task: Task) -> dict[str, str]:
    """How a mask was used, where it was not as ever."""
    options, values = task.mask_options, {}
    if options.masked_content is not MaskedContent.ORIGINAL:
        values["Masked content"] = MASKED_CONTENTS[options.masked_content]
    if options.soft:
        values["Soft inpainting"] = "True"
    if options.cover:
        values["Latent mask"] = "cover"
    if task.margins:
        values["Outpainting margins"] = str(task.margins)
    return values


def _schedule_type(sampling: Sampling) -> str:
    if sampling.timestep_spacing is None:
        return SCHEDULE_TYPES[sampling.sigma_spacing]
    return TIMESTEP_SCHEDULE_TYPES[sampling.timestep_spacing]


def _noise(sampling: Sampling) -> dict[str, str]:
    """What differs from the schedulers' defaults, and where the noise is made: on the CPU, always."""
    values = {}
    if sampling.guidance_rescale:
        values["CFG rescale"] = decimal(sampling.guidance_rescale)
    if sampling.eta is not None and sampling.eta != DEFAULT_ETA.get(sampling.scheduler):
        values["Eta DDIM" if sampling.scheduler is Scheduler.DDIM else "Eta"] = decimal(sampling.eta)
    if sampling.gamma is not None and sampling.gamma != DEFAULT_GAMMA.get(sampling.scheduler):
        values["TCD gamma"] = decimal(sampling.gamma)
    if sampling.guidance_interval is not None:
        values["Guidance interval"] = str(sampling.guidance_interval)
    if sampling.step_reuse is not None:
        values["Step reuse"] = str(sampling.step_reuse)
    return values | {"RNG": "CPU"}


def without_marks(name: str) -> str:
    """A name as it stands before its hash, without colons and commas, as the web UI writes it."""
    return name.translate({ord(":"): None, ord(","): None})
