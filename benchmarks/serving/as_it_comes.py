"""diffusers as it comes: float32, its own layout, in a process with the C library's usual settings.

Run by the benchmark: each line on standard input is a side in pixels and a number of steps; each line on
standard output how many seconds the picture took.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from benchmarks.layout import lay_out
from benchmarks.serving.sides import Drawing, diffusers_draws
from benchmarks.serving.subject import make_subject
from benchmarks.tables import seconds


@contextmanager
def diffusers_in_float32(*, tiny: bool) -> Iterator[Callable[[Drawing], None]]:
    """Start the process; what is yielded draws one picture and returns when it is there."""
    command = [sys.executable, "-m", "benchmarks.serving.as_it_comes", *(["--tiny"] if tiny else [])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        asking, answers = process.stdin, process.stdout
        if asking is None or answers is None:
            raise RuntimeError("the process has no pipes")

        def draw(asked: Drawing) -> None:
            asking.write(f"{asked.side} {asked.steps}\n")
            asking.flush()
            if not answers.readline():
                raise RuntimeError("diffusers' process ended early")

        try:
            yield draw
        finally:
            asking.close()


def main() -> None:
    """Draw as asked until the input ends."""
    with tempfile.TemporaryDirectory() as folder:
        subject = make_subject(Path(folder), torch.float32, tiny="--tiny" in sys.argv, loras=0)
        for network in (subject.model.unet, subject.model.vae):
            lay_out(network, torch.contiguous_format)
        pipe = subject.pipeline()
        for line in sys.stdin:
            asked = Drawing(steps=int(line.split()[1]), side=int(line.split()[0]))
            print(seconds(partial(diffusers_draws, pipe, asked)), flush=True)


if __name__ == "__main__":
    main()
