"""Loading a full-size SD1.5, ours against diffusers' from_pretrained: `python -m benchmarks.loading`.

Random weights (1.07 billion) are written as float16 in both layouts. Each run is a process of its own, ours
and theirs in turn. `load` is until the call returns, `touched` until each page of each weight was read, since
a mapped file is not loaded yet. Peaks are above what the process held before, relative to the parameters'
bytes: all resident pages (VmHWM), and those that are no file's (RssAnon after loading).
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from sdgrpc.diffusion.loading import load
from tests.support.full_size import save_full_size, save_full_size_file

DTYPES = ("bfloat16", "float32")


def memory() -> dict[str, int]:
    """Bytes of this process, from Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":") for line in lines if line.startswith(("VmHWM", "VmRSS", "RssAnon")))
    return {name: 1024 * int(value.split()[0]) for name, value in pairs}


def measure(side: str, source: Path, dtype: torch.dtype, tokenizer: Path) -> dict[str, float]:
    """Load once in this process."""
    from diffusers import StableDiffusionPipeline

    before, started = memory(), time.perf_counter()
    if side == "ours":
        model = load("full", source, device=torch.device("cpu"), dtype=dtype, tokenizer=tokenizer)
        networks = [model.unet, model.vae, *model.text_encoders.values()]
    else:
        pipe = StableDiffusionPipeline.from_pretrained(source, torch_dtype=dtype, local_files_only=True)
        networks = [pipe.unet, pipe.vae, pipe.text_encoder]
    loaded = time.perf_counter()
    parameters = [one.detach() for network in networks for one in network.parameters()]
    for one in parameters:
        one.view(-1).view(torch.uint8)[::4096].sum()
    touched, after = time.perf_counter(), memory()
    size = sum(one.nbytes for one in parameters)
    return {
        "load": loaded - started,
        "touched": touched - started,
        "size": size,
        "peak": (after["VmHWM"] - before["VmRSS"]) / size,
        "anonymous": (after["RssAnon"] - before["RssAnon"]) / size,
    }


def main() -> None:
    """Write the models, measure in turn, print the medians and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="with `folder` and `one.safetensors` of an earlier run")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/loading.json"))
    parser.add_argument("--once", nargs=3, metavar=("SIDE", "SOURCE", "DTYPE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.once:
        side, source, dtype = arguments.once
        tokenizer = arguments.folder / "folder" / "tokenizer"
        print(json.dumps(measure(side, Path(source), getattr(torch, dtype), tokenizer)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        place = arguments.folder or Path(scratch)
        if not (place / "one.safetensors").is_file():
            save_full_size(place / "folder", torch.float16)
            save_full_size_file(place / "folder", place / "one.safetensors")
        report(place, arguments.repeats, arguments.json)


def report(place: Path, repeats: int, target: Path) -> None:
    """Measure ours and theirs in turn."""
    contenders = (("ours", "folder"), ("diffusers", "folder"), ("ours", "one.safetensors"))
    runs: dict[str, list[dict[str, float]]] = {}
    for _ in range(repeats):
        for dtype in DTYPES:
            for side, source in contenders:
                runs.setdefault(f"{side} {source} {dtype}", []).append(in_process(place, side, source, dtype))
    medians = {
        key: {name: statistics.median(run[name] for run in each) for name in each[0]}
        for key, each in runs.items()
    }
    for key, row in medians.items():
        print(f"{key:36}" + "  ".join(f"{name} {value:.3f}" for name, value in row.items() if name != "size"))
    machine = f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"
    result: dict[str, Any] = {
        "machine": machine,
        "torch": torch.__version__,
        "runs": runs,
        "medians": medians,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def in_process(place: Path, side: str, source: str, dtype: str) -> dict[str, float]:
    """One measurement in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.loading", "--folder", str(place)]
    command += ["--once", side, str(place / source), dtype]
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
