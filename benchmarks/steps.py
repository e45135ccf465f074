"""What a guided step of SD1.5's real size costs in a thread: `python -m benchmarks.steps`.

With the C library's usual settings and with freed memory kept (`machine.allocator`), each in a process of its
own, and with the weights of convolutions contiguous and channels last: seconds (median) and page faults.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import threading

import torch

from benchmarks.layout import lay_out
from benchmarks.lora_sets.models import REAL, components
from benchmarks.lora_sets.sides import step
from benchmarks.tables import seconds
from sdgrpc.machine.allocator import keep_freed_memory

CASES = ((256, 2, 8), (256, 16, 2), (512, 2, 3))
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}


def measure(how: str) -> None:
    """Print a line for each layout and case."""
    unet = components(REAL, torch.bfloat16)["unet"]
    for layout, memory_format in LAYOUTS.items():
        lay_out(unet, memory_format)
        for side, rows, rounds in CASES:
            latents = torch.randn(rows, 4, side // 8, side // 8).bfloat16()
            text = torch.randn(rows, 77, REAL.width).bfloat16()
            step(unet, latents, text)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            times = [seconds(lambda one=latents, told=text: step(unet, one, told)) for _ in range(rounds)]  # type: ignore[misc]
            faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // rounds
            middle = statistics.median(times)
            print(
                f"{how:<6}{layout:<15}{side:>4} px{rows:>4} rows{middle:>8.3f} s{faults:>9} faults",
                flush=True,
            )


def main() -> None:
    """Measure in a process for each setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("how", nargs="?", choices=("usual", "kept"), help="one of them, in this process")
    chosen = parser.parse_args().how
    if chosen is None:
        for how in ("usual", "kept"):
            subprocess.run([sys.executable, "-m", "benchmarks.steps", how], check=True)  # noqa: S603 - ourselves
        return
    if chosen == "kept":
        keep_freed_memory()
    thread = threading.Thread(target=measure, args=(chosen,))
    thread.start()
    thread.join()


if __name__ == "__main__":
    main()
