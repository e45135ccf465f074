"""One-thread processes that average their gradients: on few busy cores faster than one of two threads."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist


def launch(module: str, arguments: list[str], processes: int) -> None:
    """Run `python -m module` as `processes` ranks of one thread each, and wait; raises CalledProcessError."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={processes}",
        "-m",
        module,
    ]
    subprocess.run(  # noqa: S603 - our own module, under our own interpreter
        [*command, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def join() -> tuple[int, int]:
    """The (rank, number of ranks) of this process; (0, 1) outside of `launch`."""
    torch.set_num_threads(1)
    if "RANK" not in os.environ:
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def average_gradients(parameters: Iterable[torch.nn.Parameter], elapsed: float) -> float:
    """Average the gradients over the ranks in place; returns the mean of `elapsed`: all stop together."""
    if not dist.is_initialized():
        return elapsed
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1) for g in gradients), torch.tensor([elapsed])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    offset = 0
    for g in gradients:
        g.copy_(flat[offset : offset + g.numel()].view_as(g))
        offset += g.numel()
    return float(flat[-1])


def autocast() -> torch.autocast:
    """Compute in bfloat16 where the processor has instructions for it; elsewhere it would take far longer."""
    fast = torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast("cpu", torch.bfloat16, enabled=fast)


class Budget:
    """A stage's clock: the share of its minutes that has passed; a resumed stage goes on where it was."""

    def __init__(self, minutes: float, done_seconds: float = 0.0) -> None:
        self.total = minutes * 60
        self.started = time.monotonic() - done_seconds
        self.elapsed = done_seconds
        self.shared = done_seconds

    def ticks(self) -> Iterator[float]:
        """Shares from 0 to 1; the step in between sets `shared` to the time that all ranks agreed on."""
        while self.shared < self.total:
            yield self.shared / self.total
            self.elapsed = time.monotonic() - self.started

    def local(self) -> float:
        """Seconds that this rank has trained, earlier runs of the stage included."""
        return time.monotonic() - self.started


def cosine(share: float, peak: float, floor: float = 0.02, warmup: float = 0.02) -> float:
    """The learning rate at this share of a stage: a linear rise, then a cosine to `floor` of the peak."""
    if share < warmup:
        return peak * (share / warmup * 0.95 + 0.05)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (share - warmup) / (1 - warmup))))


def save(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint so that a reader never sees half of it."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(path)
