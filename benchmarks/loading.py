"""Loading a full-size SD1.5, ours against diffusers' from_pretrained: `python -m benchmarks.loading`.

Random weights (1.07 billion) are written in both layouts, as float16 and then as float32, and loaded as
bfloat16 and as float32. Each run is a process of its own, ours and theirs in turn, after its files were read
once, so that all come from the system's cache, and after as much memory as is needed was used once and freed:
a hypervisor may have taken free memory back, and giving it again can cost more than all the rest. `load` is
until the call returns, `touched` until each page of each weight was read, since a mapped file is not loaded
yet. Peaks are above what the process held before, relative to the parameters' bytes: all resident pages
(VmHWM), and those that are no file's (RssAnon after loading). Loaded as bfloat16 ours is larger by the VAE's
167 MB, which it keeps in float32.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from benchmarks.tables import machine, results_path, write_json
from sdgrpc.diffusion.checkpoints.loading import load
from tests.support.full_size import save_full_size, save_full_size_file

STORED = ("float16", "float32")
DTYPES = ("bfloat16", "float32")
# Who loads what.
CONTENDERS = (("ours", "folder"), ("ours", "one.safetensors"), ("diffusers", "folder"))
# More bytes than a model takes.
MEMORY = 5 << 30
Runs = dict[str, list[dict[str, float]]]


def memory() -> dict[str, int]:
    """Bytes of this process, from Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    pairs = (line.split(":") for line in lines if line.startswith(("VmHWM", "VmRSS", "RssAnon")))
    return {name: 1024 * int(value.split()[0]) for name, value in pairs}


def measure(side: str, source: Path, dtype: torch.dtype, tokenizer: Path) -> dict[str, float]:
    """Load once in this process."""
    from diffusers import StableDiffusionPipeline

    use_once(MEMORY)
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


def main(argv: list[str] | None = None) -> None:
    """Write the models, measure in turn, print the medians and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--stored", nargs="+", choices=STORED, default=STORED, help="dtypes of the files")
    parser.add_argument("--json", type=Path, default=results_path("loading"))
    parser.add_argument("--once", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.once:
        side, source, dtype, tokenizer = arguments.once
        print(json.dumps(measure(side, Path(source), getattr(torch, dtype), Path(tokenizer))))
        return
    found = machine()
    print(f"{found['processor']}, {found['cores']} cores, {found['instructions']}, {found['versions']}")
    runs: Runs = {}
    for stored in arguments.stored:
        with tempfile.TemporaryDirectory() as scratch:
            folder = save_full_size(Path(scratch) / "folder", getattr(torch, stored))
            save_full_size_file(folder, Path(scratch) / "one.safetensors")
            runs |= measured(Path(scratch), stored, arguments.repeats)
    middle = {key: medians(each) for key, each in runs.items()}
    print("\n".join(table(middle)))
    write_json(arguments.json, {"runs": runs, "medians": middle})


def measured(place: Path, stored: str, repeats: int) -> Runs:
    """Measure ours and theirs in turn, by what the files store, what is loaded, who loads and from where."""
    runs: Runs = {}
    for _ in range(repeats):
        for dtype in DTYPES:
            for side, source in CONTENDERS:
                key = f"{stored} {dtype} {side} {source}"
                runs.setdefault(key, []).append(in_process(place, side, source, dtype))
    return runs


def medians(each: list[dict[str, float]]) -> dict[str, float]:
    """The median of every figure of some runs."""
    return {name: statistics.median(run[name] for run in each) for name in each[0]}


def table(middle: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """A line of Markdown for each pair of dtypes: seconds until all is touched (until loaded), and peaks."""
    yield "| stored | loaded as | folder s | file s | diffusers s | ours / theirs | peaks |"
    yield "|---|---|---|---|---|---|---|"
    for pair in dict.fromkeys(" ".join(key.split()[:2]) for key in middle):
        rows = [middle[f"{pair} {side} {source}"] for side, source in CONTENDERS]
        seconds = " | ".join(f"{row['touched']:.2f} ({row['load']:.2f})" for row in rows)
        ratios = ", ".join(f"{row['touched'] / rows[-1]['touched']:.2f}" for row in rows[:-1])
        peaks = ", ".join(f"{row['peak']:.2f}" for row in rows)
        yield f"| {pair.replace(' ', ' | ')} | {seconds} | {ratios} | {peaks} |"


def in_process(place: Path, side: str, source: str, dtype: str) -> dict[str, float]:
    """One measurement in a fresh process."""
    read_once(place / source)
    command = [sys.executable, "-m", "benchmarks.loading", "--once", side, str(place / source), dtype]
    command.append(str(place / "folder" / "tokenizer"))
    done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own program
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def use_once(count: int) -> None:
    """Have a process that ends touch `count` bytes of memory."""
    program = f"b'1' * {count:d}"
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - our own program


def read_once(source: Path) -> None:
    """Bring files into the system's cache."""
    for path in [source] if source.is_file() else source.rglob("*.safetensors"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


if __name__ == "__main__":
    main()
