"""The same task through diffusers' own pipelines: what ours is compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import diffusers
import torch
from transformers import CLIPTextModel

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import Conditioning
from sdgrpc.domain import Scheduler, SigmaSpacing, Task, TaskKind
from sdgrpc.images import to_image

# The classes and options of diffusers' documentation for each sampler's name in A1111.
CLASSES: Mapping[Scheduler, tuple[str, dict[str, Any]]] = {
    Scheduler.EULER: ("EulerDiscreteScheduler", {}),
    Scheduler.EULER_ANCESTRAL: ("EulerAncestralDiscreteScheduler", {}),
    Scheduler.HEUN: ("HeunDiscreteScheduler", {}),
    Scheduler.DDIM: ("DDIMScheduler", {}),
    Scheduler.DDPM: ("DDPMScheduler", {}),
    Scheduler.PNDM: ("PNDMScheduler", {}),
    Scheduler.LMS: ("LMSDiscreteScheduler", {}),
    Scheduler.DPMPP_2M: ("DPMSolverMultistepScheduler", {}),
    Scheduler.DPMPP_2M_SDE: ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Scheduler.DPMPP_SDE: ("DPMSolverSinglestepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    Scheduler.UNIPC: ("UniPCMultistepScheduler", {}),
    Scheduler.KDPM2: ("KDPM2DiscreteScheduler", {}),
    Scheduler.KDPM2_ANCESTRAL: ("KDPM2AncestralDiscreteScheduler", {}),
    Scheduler.DEIS: ("DEISMultistepScheduler", {}),
    Scheduler.LCM: ("LCMScheduler", {}),
    Scheduler.TCD: ("TCDScheduler", {}),
}
SPACINGS: Mapping[SigmaSpacing, dict[str, bool]] = {
    SigmaSpacing.DEFAULT: {},
    SigmaSpacing.KARRAS: {"use_karras_sigmas": True},
    SigmaSpacing.EXPONENTIAL: {"use_exponential_sigmas": True},
    SigmaSpacing.BETA: {"use_beta_sigmas": True},
}
PIPELINES: Mapping[TaskKind, str] = {
    TaskKind.GENERATE: "StableDiffusionPipeline",
    TaskKind.TRANSFORM: "StableDiffusionImg2ImgPipeline",
    TaskKind.INPAINT: "StableDiffusionInpaintPipeline",
}


def diffusers_errs(model: Model, task: Task) -> bool:
    """Whether diffusers itself is wrong; sampling/test_against_formulas.py has these cases.

    Its PNDM and LMS take a later beginning for the schedule's own, and its PNDM mixes predictions of v as if
    they were the noise.
    """
    scheduler, begins_later = task.sampling.scheduler, task.step_count < task.sampling.steps
    mixes_v = scheduler is Scheduler.PNDM and model.info.prediction_type == "v_prediction"
    return mixes_v or (begins_later and scheduler in (Scheduler.PNDM, Scheduler.LMS))


def diffusers_latents(model: Model, task: Task) -> torch.Tensor:
    """The final latents of diffusers' pipeline with the model's own weights, one image after the other."""
    return latents_of(pipeline_of(model, task), task)


def latents_of(pipeline: Any, task: Task) -> torch.Tensor:
    """The final latents of a pipeline of diffusers."""
    is_sdxl = hasattr(pipeline, "text_encoder_2")
    sampling = task.sampling
    arguments: dict[str, Any] = {
        "prompt": task.prompt,
        # An empty negative prompt is none for SDXL, whose pipelines tell the two apart.
        "negative_prompt": (task.negative_prompt or None) if is_sdxl else task.negative_prompt,
        "num_inference_steps": sampling.steps,
        "guidance_scale": sampling.guidance_scale,
        "clip_skip": sampling.clip_skip or None,
        "output_type": "latent",
    }
    if task.kind is not TaskKind.TRANSFORM:
        arguments |= {"width": task.width, "height": task.height}
    if task.image is not None:
        arguments |= {"image": to_image(task.image), "strength": task.strength}
    if task.mask is not None:
        arguments["mask_image"] = to_image(task.mask)
    seeds = range(sampling.seed, sampling.seed + sampling.image_count)
    with _text_model_of_transformers_4():
        drawn = [
            pipeline(**arguments, generator=torch.Generator().manual_seed(seed)).images for seed in seeds
        ]
    return torch.cat(drawn)


def diffusers_conditioning(model: Model, asked: Task) -> Conditioning:
    """What diffusers' pipeline makes of a task's prompts, which it cuts after 75 tokens."""
    return conditioning_of(pipeline_of(model, asked), asked)


def pipeline_with_its_own_words(model: Model, asked: Task) -> Any:
    """A pipeline whose tokenizers and text encoders are copies, so that they may be changed."""
    copied = replace(
        model, tokenizers=deepcopy(model.tokenizers), text_encoders=deepcopy(model.text_encoders)
    )
    return pipeline_of(copied, asked)


def conditioning_of(pipeline: Any, asked: Task) -> Conditioning:
    """What a pipeline of diffusers makes of a task's prompts."""
    arguments = {
        "device": torch.device("cpu"),
        "num_images_per_prompt": 1,
        "do_classifier_free_guidance": True,
        "negative_prompt": asked.negative_prompt,
        "clip_skip": asked.sampling.clip_skip or None,
    }
    with _text_model_of_transformers_4(), torch.inference_mode():
        return Conditioning(*pipeline.encode_prompt(asked.prompt, **arguments))


@contextmanager
def _text_model_of_transformers_4() -> Iterator[None]:
    """Give CLIPTextModel the attribute that transformers 5 dropped and diffusers' clip skip still reads."""
    if hasattr(CLIPTextModel, "text_model"):
        yield
        return
    with patch.object(CLIPTextModel, "text_model", property(lambda encoder: encoder), create=True):
        yield


def pipeline_of(model: Model, task: Task) -> Any:
    """Diffusers' pipeline for a task, of the model's own networks."""
    parts = {"vae": model.vae, "unet": model.unet, "scheduler": scheduler_of(model.scheduler_config, task)}
    parts |= model.text_encoders | model.tokenizers
    if model.is_sdxl:
        return _assembled(parts, task, force_zeros_for_empty_prompt=model.force_zeros_for_empty_prompt)
    return _assembled(parts | {"safety_checker": None, "feature_extractor": None}, task)


def pipeline_from(source: Path, folder: Path, task: Task) -> Any:
    """Diffusers' pipeline for a task, loaded by diffusers itself from a folder or a single file.

    `folder` holds the configurations and the vocabulary that a file lacks.
    """
    family = diffusers.DiffusionPipeline.load_config(folder)["_class_name"]
    cls = getattr(diffusers, family)
    if source.is_file():
        loaded = cls.from_single_file(str(source), config=str(folder), local_files_only=True)
    else:
        loaded = cls.from_pretrained(folder, local_files_only=True)
    parts = loaded.components | {"scheduler": scheduler_of(loaded.scheduler.config, task)}
    return _assembled(parts, task)


def scheduler_of(config: Mapping[str, Any], task: Task) -> Any:
    """Diffusers' scheduler that a task names, for a model of another scheduler's configuration."""
    name, options = CLASSES[task.sampling.scheduler]
    spacing = SPACINGS[task.sampling.sigma_spacing]
    built = getattr(diffusers, name).from_config(config, **options, **spacing)
    if spacing and not spacing.get("use_karras_sigmas"):
        _tell_the_first_timestep(built)
    return built


def _tell_the_first_timestep(scheduler: Any) -> None:
    """Make the first timestep of classes that know whole ones 999, which they cut to 998 from 998.99…."""
    set_timesteps = scheduler.set_timesteps

    def mended(*args: Any, **kwargs: Any) -> None:
        set_timesteps(*args, **kwargs)
        if not scheduler.timesteps.is_floating_point():
            scheduler.timesteps[0] = scheduler.config.num_train_timesteps - 1

    scheduler.set_timesteps = mended


def _assembled(parts: Mapping[str, Any], task: Task, **options: Any) -> Any:
    name = PIPELINES[task.kind]
    if "text_encoder_2" in parts:
        name = name.replace("StableDiffusion", "StableDiffusionXL")
        options["add_watermarker"] = False
    else:
        options["requires_safety_checker"] = False
    pipeline = getattr(diffusers, name)(**parts, **options)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def relative_difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """The largest difference of any latent, relative to the standard deviation of theirs."""
    return float((ours - theirs).abs().max() / theirs.std())
