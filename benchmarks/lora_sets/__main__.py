"""Our fused LoRA sets beside diffusers, at Stable Diffusion 1.5's size: `python -m benchmarks.lora_sets`.

Builds its own model and files, runs both sides in turn, prints medians and ratios, and writes JSON.
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import diffusers
import torch
import transformers

from benchmarks import tables
from benchmarks.lora_sets import measures, report
from benchmarks.lora_sets.files import STACK, write
from benchmarks.lora_sets.measures import Bench
from benchmarks.lora_sets.models import REAL, TINY, Size, components
from benchmarks.lora_sets.sides import Theirs
from sdgrpc.machine.allocator import keep_freed_memory

FIRST = ("first0", "first1", "first2")
SECOND = ("second0", "second1", "second2")


def run(size: Size, rounds: int, sets: int, folder: Path, only: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """Measure what is named in `only`; `sets` is how many go through the cache in turn."""
    dtype = torch.bfloat16
    ours = components(size, dtype)
    for seed, names in enumerate((FIRST, SECOND)):
        for number, kind in enumerate(STACK):
            write(kind, ours, folder / f"{names[number]}.safetensors", 10 * seed + number)
    bench = Bench(size, ours, Theirs(components(size, dtype), folder), folder, rounds)
    works = {
        "single": lambda: measures.miss(bench, FIRST[:1], SECOND[:1]),
        "stack": lambda: measures.miss(bench, FIRST, SECOND),
        "hit": lambda: measures.hit(bench, FIRST[0], SECOND[0]),
        "step": lambda: measures.steps(bench, FIRST[:1]),
        "hidden": lambda: measures.hidden(bench, FIRST[:1], FIRST),
        "memory": lambda: measures.memory(bench, FIRST[:2], sets),
    }
    for name in only:
        yield name, works[name]()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tiny", action="store_true", help="a model of a few thousand weights")
    parser.add_argument(
        "--json", type=Path, help=f"default: {tables.results_path('lora_sets')}; another with --tiny"
    )
    parser.add_argument("--only", nargs="+", choices=report.LINES, default=list(report.LINES))
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="both sides in a process that keeps freed memory, as serve does",
    )
    options = parser.parse_args(arguments)
    path = options.json or tables.results_path("lora_sets", tiny=options.tiny)
    results: dict[str, Any] = {"rounds": options.rounds, "keeps_memory": options.keep_memory}
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    if options.keep_memory:
        keep_freed_memory()
    gc.collect()
    gc.freeze()  # as `sdgrpc serve` does: looking through the libraries' objects is no part of either side
    with TemporaryDirectory() as folder:
        size, sets = (TINY if options.tiny else REAL), (20 if options.rounds == 1 else 100)
        for name, row in run(size, options.rounds, sets, Path(folder), options.only):
            results[name] = row
            print(report.LINES[name](row), flush=True)
            tables.write_json(path, results)  # a long run that is stopped is not lost
    gc.unfreeze()


if __name__ == "__main__":
    main()
