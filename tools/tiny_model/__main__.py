"""Retrain the embedded model: `python -m tools.tiny_model all --out DIR`. Stages resume."""

import argparse
from pathlib import Path

import torch

from . import classifier, evaluate, export, latents, parallel, train_lcm, train_lora, train_text_encoder
from .models import ASSETS, Run

STAGES = ("classifier", "text", "vae", "latents", "unet", "export", "loras", "lcm", "evaluate")
MINUTES = {"classifier": 1.5, "text": 4.0, "vae": 16.0, "unet": 66.0, "loras": 8.0, "lcm": 10.0}
PACKAGE = "tools.tiny_model"


def run_stage(stage: str, run: Run, processes: int) -> None:
    """Do one stage of the recipe, or nothing where its result is there already."""
    options = ["--out", str(run.out)]
    if stage == "classifier":
        classifier.train(run, MINUTES[stage])
    elif stage == "text":
        train_text_encoder.train(run, MINUTES[stage])
    elif stage in ("vae", "unet"):
        minutes = ["--minutes", str(MINUTES[stage])]
        parallel.launch(f"{PACKAGE}.train_{stage}", options + minutes, processes)
    elif stage == "latents":
        latents.write_statistics(run)
        parallel.launch(f"{PACKAGE}.latents", options, processes)
    elif stage == "export":
        export.export(run)
    elif stage == "loras":
        for plan in train_lora.PLANS.values():
            train_lora.train(run, plan, MINUTES[stage])
    elif stage == "lcm":
        train_lcm.train(run, MINUTES[stage])
    else:
        evaluate.evaluate(run)


def done(stage: str, run: Run) -> bool:
    """Whether the stage's result is there already: a file, or a checkpoint that has used all its minutes."""
    if stage in ("vae", "unet"):
        path = run.path(f"{stage}.pt")
        return path.exists() and torch.load(path, weights_only=True)["seconds"] >= MINUTES[stage] * 60
    results = {
        "classifier": [run.path("classifier.pt")],
        "text": [run.path("text_encoder.pt")],
        "latents": [run.path("latents.json"), run.path("cache_0.pt")],
        "loras": [run.assets / "loras" / f"{name}.safetensors" for name in train_lora.PLANS],
        "lcm": [run.assets / "loras" / f"{train_lcm.NAME}.safetensors"],
    }
    return stage in results and all(path.exists() for path in results[stage])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m {PACKAGE}", description=__doc__)
    parser.add_argument("stage", choices=("all", *STAGES))
    parser.add_argument("--out", type=Path, required=True, help="the run's folder: checkpoints, caches, logs")
    parser.add_argument(
        "--assets", type=Path, default=ASSETS, help="where the float16 model and LoRAs are written"
    )
    parser.add_argument("--processes", type=int, default=2, help="training processes of one thread each")
    arguments = parser.parse_args()
    run = Run(arguments.out, arguments.assets)
    for stage in STAGES if arguments.stage == "all" else (arguments.stage,):
        skip = arguments.stage == "all" and done(stage, run)
        print(f"== {stage}{': done before' if skip else ''}", flush=True)
        if not skip:
            run_stage(stage, run, arguments.processes)


if __name__ == "__main__":
    main()
