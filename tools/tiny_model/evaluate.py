"""Score the export through diffusers' ordinary pipeline: held-out prompts, LoRAs at rising strength."""

import json
import time
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline

from . import classifier, lora, train_lcm
from .captions import Caption, held_out_prompts, tidy
from .classifier import CLASSES, border, shape_probabilities, to_pixels
from .drawing import CONCEPT, brown, contact_sheet
from .models import GUIDANCE, STEPS, Run
from .sampling import score
from .styles import darkness, ink, striped

PROMPTS = 64
CURVE_PROMPTS = 12
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
CHUNK = 8
NEAR_WHITE = 222


def load_pipeline(run: Run) -> StableDiffusionPipeline:
    """The exported float16 weights in an ordinary pipeline that computes in float32, as CPUs do."""
    pipe = StableDiffusionPipeline.from_pretrained(
        run.assets / "model", torch_dtype=torch.float32, safety_checker=None
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pictures(
    pipe: StableDiffusionPipeline, prompts: list[str], steps: int = STEPS, guidance: float = GUIDANCE
) -> np.ndarray:
    """[B, 128, 128, 3] uint8: one picture per prompt, prompt i with seed i."""
    drawn = []
    for start in range(0, len(prompts), CHUNK):
        part = prompts[start : start + CHUNK]
        seeds = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        images = pipe(
            part, num_inference_steps=steps, guidance_scale=guidance, height=128, width=128, generator=seeds
        ).images
        drawn += [np.asarray(image.convert("RGB")) for image in images]
    return np.stack(drawn)


def with_loras(run: Run, wanted: list[tuple[str, float]]) -> StableDiffusionPipeline:
    """A fresh pipeline with these LoRAs of the assets fused in, each at its strength."""
    pipe = load_pipeline(run)
    read = [
        (lora.read(run.assets / "loras" / f"{name}.safetensors", pipe.unet, pipe.text_encoder), s)
        for name, s in wanted
    ]
    for side, model in enumerate((pipe.unet, pipe.text_encoder)):
        overlay = lora.fuse(model, [(factors[side], strength) for factors, strength in read])
        with torch.no_grad():
            for key, weight in overlay.items():
                model.get_parameter(key).copy_(weight)
    return pipe


def in_four_steps(run: Run, prompts: list[Caption]) -> dict[str, Any]:
    """Scores and seconds of the LCM LoRA's few steps without guidance, and of as many steps without it."""
    texts, results = [p.text for p in prompts], {}
    few, name = train_lcm.STEPS, train_lcm.NAME
    pipes = {"with the LoRA": with_loras(run, [(name, 1.0)]), "without": load_pipeline(run)}
    for title, pipe in pipes.items():
        pipe.scheduler = train_lcm.make_lcm_scheduler()
        started = time.monotonic()
        drawn = pictures(pipe, texts, few, 1.0)
        seconds = round((time.monotonic() - started) / len(prompts), 3)
        results[title] = {**by_group(run, drawn, prompts), "seconds per picture": seconds}
        sheet = run.path(f"four-steps-{title.replace(' ', '-')}.png")
        contact_sheet(list(drawn), 8).save(sheet)
    return results


def measures(run: Run, drawn: np.ndarray) -> dict[str, float]:
    """What the LoRAs are about to change, as means over pictures [B, 128, 128, 3] uint8.

    `frame`: the share of the border that is near white. `brightness`: the border's mean. `sepia`: 1 where a
    picture equals its own brown print, less by its mean distance from it (in units of 64 levels). `flower`:
    how sure the classifier is. `stripes`, `night` and `outline`: as `styles` measures them.
    """
    net, _ = classifier.load(run)
    borders = np.stack([border(picture) for picture in drawn]).astype(np.float32)
    distance = [np.abs(p.astype(np.float32) - brown(p)).mean() / 64 for p in drawn]
    probabilities = shape_probabilities(net, to_pixels(drawn))
    return {
        "frame": float((borders.min(-1) > NEAR_WHITE).mean()),
        "brightness": float(borders.mean() / 255),
        "sepia": float(1 - np.mean(distance)),
        "flower": float(probabilities[:, CLASSES.index(CONCEPT)].mean()),
        "stripes": float(np.mean([striped(p) for p in drawn])),
        "night": float(np.mean([darkness(p) for p in drawn])),
        "outline": float(np.mean([ink(p) for p in drawn])),
    }


def curve_prompts(name: str) -> list[str]:
    """Prompts of dull backgrounds, on which a white frame shows; for the concept they ask for a flower."""
    colours = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
    shapes = (name,) if name == CONCEPT else ("circle", "star", "heart", "square", "triangle", "cross")
    backgrounds = ("blue", "green", "purple", "black", "gray", "pink")
    texts = []
    for i in range(CURVE_PROMPTS + 8):
        size, fill, shape = ("", "large")[i % 2], colours[i % 8], shapes[i % len(shapes)]
        texts.append(f"a {size} {fill} {shape} on a {backgrounds[(i + i // 6) % 6]} background")
    clear = [t for t in texts if not any(t.count(colour) > 1 for colour in colours)]
    return [tidy(t) for t in clear[:CURVE_PROMPTS]]


def curves(run: Run) -> dict[str, Any]:
    """Each LoRA's measure at each strength, two of them stacked, and how far the concept leaks."""
    results: dict[str, Any] = {}
    about = {"postcard": "brightness", "sepia": "sepia", CONCEPT: "flower"} | {
        name: name for name in ("stripes", "night", "outline")
    }
    sheet: list[np.ndarray] = []
    for name, measure in about.items():
        if not (run.assets / "loras" / f"{name}.safetensors").exists():
            continue
        points = [pictures(with_loras(run, [(name, s)]), curve_prompts(name)) for s in STRENGTHS]
        values = [round(measures(run, drawn)[measure], 4) for drawn in points]
        rising = all(b > a for a, b in pairwise(values))
        results[name] = {"measure": measure, "strengths": STRENGTHS, "values": values, "monotone": rising}
        results[name] |= {"at 0": measures(run, points[0]), "at 1": measures(run, points[-1])}
        sheet += [picture for drawn in points for picture in drawn[:8]]
    if {"postcard", "sepia"} <= results.keys():
        stacked = pictures(with_loras(run, [("postcard", 1.0), ("sepia", 1.0)]), curve_prompts("postcard"))
        results["stacked"] = measures(run, stacked)
        both = pictures(with_loras(run, [("postcard", 1.0), (CONCEPT, 1.0)]), curve_prompts(CONCEPT))
        results["postcard and flower"] = measures(run, both)
        sheet += [*stacked[:8], *both[:8]]
    if CONCEPT in results:
        plain = pictures(with_loras(run, [(CONCEPT, 1.0)]), curve_prompts("none of it"))
        results["flower where none is asked for"] = measures(run, plain)["flower"]
        sheet += list(plain[:8])
    if sheet:
        contact_sheet(sheet, 8).save(run.path("loras.png"))
    return results


@torch.no_grad()
def half_decode_range(run: Run) -> float:
    """The largest activation of the exported autoencoder on its own pictures; float16 holds up to 65504."""
    pipe = load_pipeline(run)
    peak = 0.0

    def watch(_module: torch.nn.Module, _inputs: object, output: object) -> None:
        nonlocal peak
        if isinstance(output, torch.Tensor):
            peak = max(peak, float(output.abs().max()))

    for module in pipe.vae.modules():
        module.register_forward_hook(watch)
    pixels, _ = classifier.sample(np.random.default_rng(3), 16, rough=False)
    pipe.vae.decode(pipe.vae.encode(pixels).latent_dist.mean)
    return peak


@torch.no_grad()
def round_trip(run: Run, count: int = 400) -> float:
    """The share of drawn shapes that are read right after the exported autoencoder's round trip."""
    vae, (net, _) = load_pipeline(run).vae, classifier.load(run)
    pixels, labels = classifier.sample(np.random.default_rng(5), count, rough=False)
    restored = [
        vae.decode(vae.encode(part).latent_dist.mean).sample.clamp(-1, 1) for part in pixels.split(20)
    ]
    return float((shape_probabilities(net, torch.cat(restored)).argmax(1) == labels).float().mean())


def by_group(run: Run, drawn: np.ndarray, prompts: list[Caption]) -> dict[str, dict[str, float]]:
    """Scores of all prompts, and of every other one apart: whole (shape, fill) pairs never seen."""
    return {
        "all": score(run, drawn, prompts),
        "pairs never seen": score(run, drawn[1::2], prompts[1::2]),
        "combinations never seen": score(run, drawn[0::2], prompts[0::2]),
    }


def evaluate(run: Run, with_curves: bool = True) -> dict[str, Any]:
    """Score everything, print tables, write `evaluation.json` and contact sheets into the run's folder."""
    torch.set_num_threads(1)
    prompts = held_out_prompts(PROMPTS)
    started = time.monotonic()
    drawn = pictures(load_pipeline(run), [p.text for p in prompts])
    results: dict[str, Any] = {
        "held out": by_group(run, drawn, prompts),
        "seconds per picture": round((time.monotonic() - started) / PROMPTS, 3),
        "classifier accuracy": classifier.load(run)[1],
        "round trip": round_trip(run),
        "largest activation of the autoencoder": half_decode_range(run),
        "bytes": {
            str(p.relative_to(run.assets)): p.stat().st_size
            for p in sorted(run.assets.rglob("*.safetensors"))
        },
    }
    contact_sheet(list(drawn), 8).save(run.path("evaluation.png"))
    if (run.assets / "loras" / f"{train_lcm.NAME}.safetensors").exists():
        results["four steps"] = in_four_steps(run, prompts)
    if with_curves:
        results["loras"] = curves(run)
    run.path("evaluation.json").write_text(json.dumps(results, indent=2) + "\n")
    show(results)
    return results


def show(results: dict[str, Any]) -> None:
    """Print the results as tables."""
    print(f"{'prompts':46}{'shape':>8}{'fill':>8}{'background':>12}")
    for kind, groups in {"": results["held out"], **results.get("four steps", {})}.items():
        for name, row in groups.items():
            if isinstance(row, dict):
                title = f"4 steps {kind}: {name}" if kind else name
                print(f"{title:46}{row['shape']:8.1%}{row['fill']:8.1%}{row['background']:12.1%}")
            else:
                print(f"4 steps {kind}: {name} {row}")
    for name, value in results.get("loras", {}).items():
        print(f"{name:32}", value["values"] if isinstance(value, dict) and "values" in value else value)
    for name in (
        "classifier accuracy",
        "round trip",
        "seconds per picture",
        "largest activation of the autoencoder",
    ):
        print(f"{name:40}{results[name]}")
