"""What a queued job waits for its LoRA files, read ahead and not: `python -m benchmarks.prefetch`.

One job of SD1.5's real size, bfloat16, 128x128, is drawn at a time; behind it waits one with three LoRA files
whose hashes are known and whose contents are not in memory any more. Rounds in turn with `--prefetch` and
without, with the files in the system's cache (`warm`) and dropped from it (`cold`, `posix_fadvise`). Told are
the medians of what the waiting job's turn took until it could step: reading, and fusing; of the steps of the
job before, which share the processor; and of both jobs from first to last.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import tables
from benchmarks.lora_sets.files import SINGLE, STACK, write
from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import LoraRef, Task
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.observing.observer import JobObserver, Observer, Stage
from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.machine.allocator import keep_freed_memory
from tests.support.full_size import save_full_size
from tests.support.models import save_model
from tests.support.tasks import task

SIDE, STEPS = 128, 4
NAMES = tuple(f"file{number}" for number in range(len(STACK)))
OTHER = "other"
STRENGTHS = itertools.count(1)


class Stages(Observer, JobObserver):
    """The seconds of each stage of the jobs of one round."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Begin anew."""
        self.seconds: dict[Stage, list[float]] = {stage: [] for stage in Stage}
        self.ahead = 0

    def begin(self, task: Task) -> JobObserver:
        """See `Observer.begin`."""
        del task
        return self

    def took(self, stage: Stage, seconds: float) -> None:
        """See `JobObserver.took`."""
        self.seconds[stage].append(seconds)

    def read_ahead(self, files: int) -> None:
        """See `JobObserver.read_ahead`."""
        self.ahead += files


def hashed(folder: Path) -> LoraLibrary:
    """A library that has hashed its files and parsed none."""
    library = LoraLibrary([folder])
    for entry in library.entries():
        library.hashes_of_entry(entry)
    return library


def drop_from_cache(folder: Path) -> None:
    """Have the system forget the files of a folder."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


async def drawn(engine: LocalEngine, asked: Task) -> None:
    """Draw a task to its end."""
    async for _ in engine.submit(asked):
        pass


async def round_of(model: Model, folder: Path, *, prefetch: bool, cold: bool) -> dict[str, float]:
    """One job, and one with files behind it."""
    stages = Stages()
    options = EngineOptions(LoopOptions(max_running_jobs=1), prefetch=prefetch)
    engine = LocalEngine([model], hashed(folder), options, stages)
    strength = 0.5 + 0.001 * next(STRENGTHS)
    loras = tuple(LoraRef(strength, strength, name=name) for name in NAMES)
    asked = replace(task(steps=STEPS), model=model.info.name, width=SIDE, height=SIDE)
    try:
        # So that the threads, and memory for a set, are there.
        before = tuple(replace(one, strength=0.4) for one in loras)
        await drawn(engine, replace(asked, loras=before))
        await drawn(engine, replace(asked, loras=(LoraRef(strength, strength, name=OTHER),)))
        forget(engine.library)
        stages.forget()
        if cold:
            drop_from_cache(folder)
        began = time.perf_counter()
        await asyncio.gather(drawn(engine, asked), drawn(engine, replace(asked, loras=loras)))
        together = time.perf_counter() - began
    finally:
        await engine.close()
    return {
        "read": stages.seconds[Stage.READ][0],
        "fused": stages.seconds[Stage.FUSED][0],
        "before": stages.seconds[Stage.DENOISED][0],
        "files": stages.ahead,
        "together": together,
    }


def main(argv: list[str] | None = None) -> None:
    """Measure in turn, print the medians and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--folder", type=Path, help="where the model is written, or lies from another time")
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand weights")
    options = parser.parse_args(argv)
    path = tables.results_path("prefetch", tiny=options.tiny)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        model, folder = prepared(options.folder or Path(scratch), tiny=options.tiny)
        runs: dict[str, list[dict[str, float]]] = {}
        for number in range(-1, options.rounds):
            for cold, prefetch in itertools.product((False, True), (False, True)):
                key = f"{'cold' if cold else 'warm'} {'ahead' if prefetch else 'at its turn'}"
                found = asyncio.run(round_of(model, folder, prefetch=prefetch, cold=cold))
                if number >= 0:
                    runs.setdefault(key, []).append(found)
            if number >= 0:  # a long run that is stopped is not lost
                middle = {key: medians(each) for key, each in runs.items()}
                tables.write_json(path, {"runs": runs, "medians": middle})
                print("\n".join(lines(middle)), flush=True)


def forget(library: LoraLibrary) -> None:
    """Drop every parsed file but one that nobody asks for."""
    library.parsed.capacity_bytes, most = 0, library.parsed.capacity_bytes
    library.find(LoraRef(name=OTHER)).adapter()
    library.parsed.keep(())
    library.parsed.capacity_bytes = most


def medians(each: list[dict[str, float]]) -> dict[str, float]:
    """The median of every figure of some rounds."""
    return tables.medians({name: [run[name] for run in each] for name in each[0]})


def prepared(scratch: Path, *, tiny: bool) -> tuple[Model, Path]:
    """A model, and a folder with three files for it."""
    saved, folder = scratch / "model", scratch / "loras"
    if not saved.exists():
        _ = save_model(saved) if tiny else save_full_size(saved, torch.bfloat16)
    model = load("full", saved, device=torch.device("cpu"), dtype=torch.float32 if tiny else torch.bfloat16)
    folder.mkdir(exist_ok=True)
    for number, (name, kind) in enumerate(zip((*NAMES, OTHER), (*STACK, SINGLE), strict=True)):
        write(kind, model.lora_components(), folder / f"{name}.safetensors", number)
    return model, folder


def lines(middle: dict[str, dict[str, float]]) -> Iterator[str]:
    """A table in Markdown."""
    yield "| files | read ahead | read | fused | both | steps of the job before | both jobs |"
    yield "|---|---|---|---|---|---|---|"
    for key, row in middle.items():
        turn = (1e3 * seconds for seconds in (row["read"], row["fused"], row["read"] + row["fused"]))
        ends = (f"{row['before']:.2f} s", f"{row['together']:.2f} s")
        cells = [key, f"{row['files']:.0f}", *(f"{one:.0f} ms" for one in turn)]
        yield f"| {' | '.join([*cells, *ends])} |"


if __name__ == "__main__":
    main()
