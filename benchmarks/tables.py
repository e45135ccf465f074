"""What the benchmarks share: timing, alternating rounds, medians, and what machine it was."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

Work = Callable[[], object]


def seconds(work: Work) -> float:
    """Time one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def alternate(works: Mapping[str, Work], rounds: int, *, warm_up: int = 1) -> dict[str, list[float]]:
    """Time every work once a round, one after the other, so that a busy moment hits all of them alike."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(-warm_up, rounds):
        for name, work in works.items():
            spent = seconds(work)
            if number >= 0:
                times[name].append(spent)
    return times


def medians(times: Mapping[str, list[float]]) -> dict[str, float]:
    """The median of each list."""
    return {name: statistics.median(values) for name, values in times.items()}


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that a share of the sorted values is below."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def machine() -> dict[str, Any]:
    """The processor, its load, and the versions of what was measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {name: version(name) for name in ("torch", "diffusers", "peft", "transformers")},
        "python": platform.python_version(),
    }


ROOT = Path(__file__).resolve().parent.parent


def results_path(name: str, *, tiny: bool = False) -> Path:
    """Where a benchmark writes: in the committed results, unless a tiny model makes its figures none."""
    return ROOT / (f"build/benchmarks/{name}-tiny.json" if tiny else f"benchmarks/results/{name}.json")


def write_json(path: Path, results: Mapping[str, Any]) -> None:
    """Write results beside what machine they are of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"machine": machine(), **results}, indent=2)
    path.write_text(text + "\n", encoding="utf-8")
