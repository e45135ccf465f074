"""Run as a command: `python -m benchmarks.serving --only single,batch --sides 256 512 --steps 8`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.serving.sections import SECTIONS, Bench, Record
from benchmarks.serving.subject import make_subject
from benchmarks.tables import results_path, write_json
from sdgrpc.diffusion.checkpoints.precision import fastest_dtype
from sdgrpc.machine.allocator import keep_freed_memory


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen sections, print them, and write them after each one."""
    options = parser().parse_args(arguments)
    chosen = options.only.split(",")
    if unknown := [name for name in chosen if name not in SECTIONS]:
        sys.exit(f"--only: there is no section {unknown[0]!r}; there are {', '.join(SECTIONS)}")
    path = options.json or results_path(
        "serving-embedded" if options.embedded else "serving", tiny=options.tiny
    )
    dtype = fastest_dtype(torch.device("cpu")) if options.dtype == "auto" else getattr(torch, options.dtype)
    found: dict[str, Record] = {}
    with tempfile.TemporaryDirectory() as folder:
        kind = {"tiny": options.tiny, "embedded": options.embedded}
        subject = make_subject(Path(folder), dtype, **kind, loras=options.loras)
        bench = Bench(
            subject,
            options.rounds,
            options.steps,
            tuple(options.sides),
            options.clients,
            options.requests,
            options.trace_requests,
        )
        for name in chosen:
            found[name] = SECTIONS[name](bench)
            print(name, json.dumps(found[name], indent=2), flush=True)
            asked = {key: str(value) for key, value in vars(options).items()} | {"dtype": str(dtype)}
            write_json(path, {"options": asked} | found)
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    made.add_argument("--rounds", type=int, default=3)
    made.add_argument("--steps", type=int, default=8)
    made.add_argument("--sides", type=int, nargs="+", default=[256, 512], help="pixels; the first is common")
    made.add_argument("--clients", type=int, default=8)
    made.add_argument("--requests", type=int, default=40, help="of the trace")
    made.add_argument("--trace-requests", type=int, default=200, help="of each trace of `loads`")
    made.add_argument("--loras", type=int, default=12)
    made.add_argument("--dtype", default="auto", choices=["auto", "float32", "bfloat16"])
    made.add_argument("--tiny", action="store_true", help="a tiny model: to try the benchmark itself")
    made.add_argument(
        "--embedded", action="store_true", help="the embedded model, where the real size would take hours"
    )
    made.add_argument("--json", type=Path, help=f"default: {results_path('serving')}; another with --tiny")
    return made


if __name__ == "__main__":
    keep_freed_memory()  # as `sdgrpc serve` does; here it serves both sides
    sys.exit(main())
