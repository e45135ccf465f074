"""Write what a run has so far as a float16 pipeline in diffusers' layout, each file replaced in one go."""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel

from . import parallel
from .models import (
    GUIDANCE,
    STEPS,
    Run,
    make_scheduler,
    make_text_encoder,
    make_tokenizer,
    make_unet,
    make_vae,
)

CARD = {
    "title": "Tiny shapes",
    "description": "One thick shape on a softly lit background: "
    "'a [small|large] red|orange|yellow|green|blue|purple|pink|white circle|square|triangle|star|heart|cross "
    "on a white|black|gray|blue|green|yellow|pink|purple background'.",
    "default_width": 128,
    "default_height": 128,
    "default_steps": STEPS,
    "default_guidance_scale": GUIDANCE,
}


def _state(run: Run, name: str) -> dict[str, Any]:
    path = run.path(name)
    return torch.load(path, weights_only=True) if path.exists() else {}


def load_vae(run: Run) -> AutoencoderKL:
    """The autoencoder of a run with its scaling factor, untrained where there is no checkpoint."""
    vae, state = make_vae(), _state(run, "vae.pt")
    if state:
        vae.load_state_dict(state["model"])
    statistics = run.path("latents.json")
    if statistics.exists():
        vae.register_to_config(scaling_factor=json.loads(statistics.read_text())["scaling_factor"])
    return vae.eval().requires_grad_(False)


def load_text_encoder(run: Run) -> CLIPTextModel:
    """The text encoder of a run, untrained where there is no checkpoint."""
    encoder, state = make_text_encoder(make_tokenizer(run)), _state(run, "text_encoder.pt")
    if state:
        encoder.load_state_dict(state["model"])
    return encoder.eval().requires_grad_(False)


def load_unet(run: Run) -> UNet2DConditionModel:
    """The averaged weights of a run's denoiser, untrained where there is no checkpoint."""
    unet, state = make_unet(), _state(run, "unet.pt")
    if state:
        unet.load_state_dict(state["average"])
    return unet.eval().requires_grad_(False)


def pipeline(run: Run, dtype: torch.dtype = torch.float16) -> StableDiffusionPipeline:
    """The run's parts as one pipeline; a part that is not trained yet has random weights."""
    torch.manual_seed(0)
    pipe = StableDiffusionPipeline(
        vae=load_vae(run).to(dtype=dtype),
        text_encoder=load_text_encoder(run).to(dtype=dtype),
        tokenizer=make_tokenizer(run),
        unet=load_unet(run).to(dtype=dtype),
        scheduler=make_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def export(run: Run) -> Path:
    """Write the float16 pipeline and its card to `assets/tiny/model`; returns that folder."""
    target = run.assets / "model"
    with tempfile.TemporaryDirectory(dir=run.out) as temporary:
        staged = Path(temporary)
        pipeline(run).save_pretrained(staged, safe_serialization=True)
        card = dict(CARD)
        statistics = run.path("latents.json")
        if statistics.exists():
            card |= {
                k: v for k, v in json.loads(statistics.read_text()).items() if k.startswith("latent_rgb")
            }
        for name in ("vocab.json", "merges.txt"):
            shutil.copyfile(run.path("tokenizer") / name, staged / "tokenizer" / name)
        (staged / "sdgrpc.json").write_text(json.dumps(card, indent=2) + "\n")
        for file in sorted(p for p in staged.rglob("*") if p.is_file()):
            place(file, target / file.relative_to(staged))
    return target


def restore(run: Run) -> None:
    """Make a run's checkpoints from the assets, so that LoRAs can be trained without training the base again.

    They are float16's roundings, and marked as finished: a stage of the base is not gone on with.
    """
    pipe = StableDiffusionPipeline.from_pretrained(
        run.assets / "model", torch_dtype=torch.float32, safety_checker=None
    )
    shutil.copytree(run.assets / "model" / "tokenizer", run.path("tokenizer"), dirs_exist_ok=True)
    finished = {"step": 0, "seconds": float("inf")}
    weights = pipe.unet.state_dict()
    parallel.save(run.path("unet.pt"), {"average": weights, "model": weights, **finished})
    parallel.save(run.path("vae.pt"), {"model": pipe.vae.state_dict(), **finished})
    parallel.save(run.path("text_encoder.pt"), {"model": pipe.text_encoder.state_dict()})
    card = json.loads((run.assets / "model" / "sdgrpc.json").read_text())
    statistics = {key: value for key, value in card.items() if key.startswith("latent_rgb")}
    statistics["scaling_factor"] = pipe.vae.config.scaling_factor
    run.path("latents.json").write_text(json.dumps(statistics, indent=2) + "\n")


def place(file: Path, target: Path) -> None:
    """Copy `file` to `target` so that a reader sees the old one or the new one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and target.read_bytes() == file.read_bytes():
        return
    beside = target.with_name(target.name + ".part")
    shutil.copyfile(file, beside)
    beside.replace(target)
