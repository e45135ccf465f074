"""What packed convolutions save of a UNet call of SD1.5's real size: `python -m benchmarks.packing`.

Two networks with the same weights, one with its convolutions channels last and one with them packed
(`machine.onednn.packing`), in turn: medians, the smallest and the ratio. `--threads 1` measures what other
work on the machine changes least.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.layout import lay_out
from benchmarks.lora_sets.models import REAL, components
from benchmarks.lora_sets.sides import step
from benchmarks.tables import machine, results_path, seconds, write_json
from sdgrpc.machine.allocator import keep_freed_memory
from sdgrpc.machine.onednn.packing import pack_convolutions

DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32}
Record = dict[str, float]


def networks(dtype: torch.dtype) -> tuple[nn.Module, nn.Module, float]:
    """A network by rows, one that is packed, and the seconds that packing took."""
    by_rows = lay_out(components(REAL, dtype)["unet"], torch.channels_last)
    packed = copy.deepcopy(by_rows)
    began = time.perf_counter()
    pack_convolutions(packed)
    return by_rows, packed, time.perf_counter() - began


@torch.inference_mode()
def measured(by_rows: nn.Module, packed: nn.Module, side: int, rows: int, rounds: int) -> Record:
    """Seconds of a call of each, in turn; whether both answer the same."""
    dtype = next(by_rows.parameters()).dtype
    latents = torch.randn(rows, 4, side // 8, side // 8).to(dtype).to(memory_format=torch.channels_last)
    text = torch.randn(rows, 77, REAL.width).to(dtype)
    equal = torch.equal(step(by_rows, latents, text), step(packed, latents, text))
    times: dict[str, list[float]] = {"by rows": [], "packed": []}
    for _ in range(rounds):
        for name, network in zip(times, (by_rows, packed), strict=True):
            times[name].append(seconds(lambda network=network: step(network, latents, text)))  # type: ignore[misc]
    found = {name: statistics.median(each) for name, each in times.items()}
    found |= {f"{name}, smallest": min(each) for name, each in times.items()}
    return found | {"ratio": found["by rows"] / found["packed"], "equal bits": float(equal)}


def main() -> None:
    """Measure every dtype and size, print a line for each, write the JSON."""
    options = parser().parse_args()
    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    found: dict[str, Record] = {}
    for name in options.dtypes:
        by_rows, packed, spent = networks(DTYPES[name])
        print(f"{name}: packed in {spent:.2f} s", flush=True)
        for side in options.sides:
            record = measured(by_rows, packed, side, options.rows, options.rounds)
            found[f"{name}, {side}x{side}"] = record | {"packing": spent}
            print(f"{name} {side}x{side} " + "  ".join(f"{k} {v:.3f}" for k, v in record.items()), flush=True)
        del by_rows, packed
    settings = {"threads": torch.get_num_threads(), "rows": options.rows, "rounds": options.rounds}
    write_json(options.json, {"machine": machine(), "settings": settings, "seconds": found})


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES))
    made.add_argument("--sides", nargs="+", type=int, default=[256, 512], help="pixels")
    made.add_argument("--rows", type=int, default=2)
    made.add_argument("--rounds", type=int, default=5)
    made.add_argument("--threads", type=int, help="torch's own number unless given")
    made.add_argument("--json", type=Path, default=results_path("packing"))
    return made


if __name__ == "__main__":
    main()
