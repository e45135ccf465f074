"""The measurements of `benchmarks.lora_sets`, each on both sides in alternating rounds."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from benchmarks import tables
from benchmarks.lora_sets.models import Size
from benchmarks.lora_sets.sides import Copy, Ours, Theirs, step

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bench:
    """What is measured: the same model twice, the folder of files, and how often."""

    size: Size
    ours: Mapping[str, nn.Module]
    theirs: Theirs
    folder: Path
    rounds: int

    def cache(self, names: Sequence[str], sets: float) -> Ours:
        """A cache with room for so many sets of these files."""
        probe = Ours(self.ours, self.folder, 0)
        with probe.acquire(names, [1.0] * len(names)) as lease:
            return Ours(self.ours, self.folder, int(sets * lease.overlay.nbytes))

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Latents `[2, 4, h, w]` and text `[2, 77, width]`."""
        dtype = next(self.ours["unet"].parameters()).dtype
        latents = torch.randn(2, 4, self.size.latent, self.size.latent)
        return latents.to(dtype), torch.randn(2, 77, self.size.width).to(dtype)


def expect(condition: bool) -> None:
    """Stop where a measurement would not be of what it says."""
    if not condition:
        raise RuntimeError("the cache did not do what this measurement is about")


def miss(bench: Bench, first: Sequence[str], second: Sequence[str]) -> Row:
    """From files to ready for a step, in turn for two sets where one has room, and a member's strength."""
    strengths = [0.8] * len(first)
    cache, turns, numbers = bench.cache(first, 1.0), itertools.cycle([first, second]), itertools.count(1)
    fusing: list[float] = []
    with cache.acquire(first, strengths) as lease:
        copy = Copy(bench.ours, lease)

    def ours() -> None:
        cache.forget()
        with cache.acquire(next(turns), strengths) as lease:
            fusing.append(lease.fuse_seconds)
            expect(lease.cached is False)  # the other set was to be evicted

    def strength() -> None:
        changed = [0.6 + 0.001 * next(numbers), *strengths[1:]]
        with cache.acquire(first, changed) as lease:
            expect(lease.cached is False)  # another strength is another set

    def theirs() -> None:
        bench.theirs.load(first)
        bench.theirs.fuse(first, strengths)

    times: dict[str, list[float]] = {"ours": [], "strength": [], "copy": [], "diffusers": []}
    next(turns)  # the first set is there
    for number in range(-1, bench.rounds):
        for name, work in (("ours", ours), ("strength", strength), ("copy", copy), ("diffusers", theirs)):
            spent = tables.seconds(work)
            if number >= 0:
                times[name].append(spent)
        bench.theirs.clear()
    middle = tables.medians({**times, "fusing": fusing[1:]})
    return {
        "bytes": copy.nbytes,
        "seconds": times,
        "median": middle,
        "diffusers_over_ours": middle["diffusers"] / middle["ours"],
        "fusing_over_copy": middle["fusing"] / middle["copy"],
        "diffusers_over_strength": middle["diffusers"] / middle["strength"],
    }


def hit(bench: Bench, first: str, second: str) -> Row:
    """Go between two sets that are both there."""
    cache, theirs = bench.cache([first], 2.0), bench.theirs
    for name in (first, second):
        cache.acquire([name], [0.8]).release()
    theirs.load([first, second])
    theirs.fuse([first], [0.8])
    turns, other = itertools.cycle([first, second]), itertools.cycle([second, first])

    def switch() -> None:
        with cache.acquire([next(turns)], [0.8]) as lease:
            expect(lease.cached)
            cache.activate(lease)

    works = {"ours": switch, "diffusers": lambda: theirs.refuse([next(other)], [0.8])}
    times = tables.alternate(works, max(2, bench.rounds))
    cache.base()
    theirs.clear()
    middle = tables.medians(times)
    ratio = middle["diffusers"] / middle["ours"]
    return {"seconds": times, "median": middle, "diffusers_over_ours": ratio}


def steps(bench: Bench, names: Sequence[str]) -> Row:
    """A step with the base, with a fused set, and with diffusers' adapters unfused."""
    cache, inputs = bench.cache(names, 1.0), bench.inputs()
    lease = cache.acquire(names, [0.8] * len(names))
    bench.theirs.load(names)
    bench.theirs.pipeline.set_adapters(list(names), [0.8] * len(names))

    def base() -> None:
        cache.base()
        step(bench.ours["unet"], *inputs)

    def fused() -> None:
        cache.activate(lease)
        step(bench.ours["unet"], *inputs)

    works = {"base": base, "fused": fused, "unfused": lambda: step(bench.theirs.pipeline.unet, *inputs)}
    times = tables.alternate(works, max(2, 3 * bench.rounds))
    cache.base()
    lease.release()
    bench.theirs.pipeline.unload_lora_weights()
    middle = tables.medians(times)
    return {
        "seconds": times,
        "median": middle,
        "fused_over_base": middle["fused"] / middle["base"],
        "unfused_over_base": middle["unfused"] / middle["base"],
    }


def memory(bench: Bench, names: Sequence[str], count: int) -> Row:
    """Bytes of a set beside those of its weights; the process over many sets under a budget of two."""
    cache, process = bench.cache([names[-1]], 2.0), psutil.Process()
    resident, share = [], 0.0
    for number in range(count):
        with cache.acquire([names[number % len(names)]], [0.5 + 0.001 * number]) as lease:
            touched = {n: dict(module.named_parameters()) for n, module in bench.ours.items()}
            weights = sum(
                touched[n][key].nbytes for n, named in lease.overlay.tensors.items() for key in named
            )
            share = max(share, lease.overlay.nbytes / weights)
        resident.append(process.memory_info().rss / 2**20)
    settled = resident[count // 10 :]
    return {
        "sets": count,
        "set_over_weights": share,
        "resident_mib": [round(value, 1) for value in resident],
        "growth_mib": max(settled) - settled[0],
    }


def hidden(bench: Bench, running: Sequence[str], queued: Sequence[str]) -> Row:
    """The steps of one job while the set of another is fused, on the threads that the engine has for them."""
    inputs = bench.inputs()
    first, second = bench.cache(running, 1.0), bench.cache(queued, 1.0)
    second.acquire(queued, [0.5] * len(queued)).release()  # so that there is memory to use again
    lease = first.acquire(running, [0.8] * len(running))
    begun = time.perf_counter()
    events: list[dict[str, Any]] = []

    @contextmanager
    def noted(what: str) -> Iterator[None]:
        started = time.perf_counter() - begun
        yield
        events.append({"what": what, "start": started, "end": time.perf_counter() - begun})

    warm, fused = threading.Event(), threading.Event()

    def prepare() -> None:
        warm.wait()
        with noted("fuse"), second.acquire(queued, [0.9] * len(queued)):
            pass
        fused.set()

    thread = threading.Thread(target=prepare)
    thread.start()
    after = 0
    while after < 3:
        with noted("step"):
            first.activate(lease)
            step(bench.ours["unet"], *inputs)
        warm.set() if len(events) >= 3 else None
        after += fused.is_set()
    thread.join()
    first.base()
    lease.release()
    fuse = next(event for event in events if event["what"] == "fuse")
    beside = [
        e for e in events if e["what"] == "step" and e["end"] > fuse["start"] and e["start"] < fuse["end"]
    ]
    return {
        "events": sorted(events, key=lambda event: event["start"]),
        "fuse_seconds": fuse["end"] - fuse["start"],
        "steps_beside": len(beside),
        "longest_step": max(event["end"] - event["start"] for event in beside),
    }
