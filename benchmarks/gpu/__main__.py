"""Run as a command: `python -m benchmarks.gpu --minutes 5 --json results.json`; see `--help`.

Sections come in the order of their worth. Each is left out, and says so, once too little time is left for it;
what was measured is written after each.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from benchmarks.gpu import pictures, report, steps, switches
from benchmarks.gpu.subject import Subject, make
from benchmarks.gpu.timing import Clock
from benchmarks.tables import results_path, write_json

Record = dict[str, Any]
LORAS = {"sd15": 12, "sdxl": 6}


class Run:
    """The subjects, made once each, and the sections that use them."""

    def __init__(self, device: torch.device, folder: Path, clock: Clock, *, tiny: bool) -> None:
        self._device, self._folder, self.clock, self._tiny = device, folder, clock, tiny
        self._subject: Subject | None = None

    def subject(self, name: str) -> Subject:
        """Return a model; one is in memory at a time."""
        if self._subject is None or self._subject.name != name:
            self._subject = None
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            folder = Path(tempfile.mkdtemp(dir=self._folder)) / name
            self._subject = make(name, folder, self._device, tiny=self._tiny, loras=LORAS[name])
        return self._subject

    def sections(self) -> dict[str, tuple[float, Callable[[], Iterator[Record]]]]:
        """Each section's name, the seconds that it needs, and how to measure it."""
        return {
            "sd15 switches": (20, lambda: self._switches("sd15")),
            "sd15 steps": (30, lambda: self._steps("sd15", (2,))),
            "sd15 pictures": (15, lambda: self._single("sd15", 20)),
            "sdxl switches": (30, lambda: self._switches("sdxl")),
            "sdxl steps": (40, lambda: self._steps("sdxl", (2,))),
            "sdxl pictures": (25, lambda: self._single("sdxl", 20)),
            "sd15 trace": (70, lambda: self._trace("sd15", 8)),
            "sd15 compiled whole": (60, lambda: self._whole("sd15")),
            "sd15 more steps": (40, lambda: self._steps("sd15", (8, 4, 16))),
            "sdxl compiled whole": (100, lambda: self._whole("sdxl")),
            "sdxl more steps": (80, lambda: self._steps("sdxl", (8, 4, 16))),
        }

    def _switches(self, name: str) -> Iterator[Record]:
        subject = self.subject(name)
        yield {"resident factors": switches.switches(subject, resident=True)}
        yield {"fused sets": switches.switches(subject, resident=False)}
        yield {"diffusers": switches.diffusers_switches(subject, self.clock)}

    def _steps(self, name: str, rows: tuple[int, ...]) -> Iterator[Record]:
        for record in steps.steps(self.subject(name), self.clock, rows, self._modes):
            yield {f"{record['rows']} rows": record}

    def _whole(self, name: str) -> Iterator[Record]:
        yield {"2 rows": steps.whole(self.subject(name), self.clock, 2, 60)}

    def _single(self, name: str, count: int) -> Iterator[Record]:
        yield pictures.single(self.subject(name), self._mode, 2 if self._tiny else count, 3)

    def _trace(self, name: str, count: int) -> Iterator[Record]:
        steps, requests = (2, 6) if self._tiny else (count, 40)
        yield from pictures.trace(self.subject(name), (self._mode, "off"), steps, requests, self.clock)

    @property
    def _modes(self) -> tuple[pictures.Mode, ...]:
        return ("graphs",) if self._device.type == "cuda" else ("blocks",)

    @property
    def _mode(self) -> pictures.Mode:
        return "graphs" if self._device.type == "cuda" else "blocks"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the chosen sections, print them, and write them after each one."""
    options = parser().parse_args(arguments)
    logging.getLogger("sdgrpc").setLevel(logging.WARNING)
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    path = options.json or results_path("gpu", tiny=options.tiny)
    device, began = torch.device(options.device), time.monotonic()
    found: Record = {"device": torch.cuda.get_device_name() if device.type == "cuda" else options.device}
    with tempfile.TemporaryDirectory() as folder:
        run = Run(device, Path(folder), Clock(options.minutes), tiny=options.tiny)
        for name, (needed, section) in run.sections().items():
            if options.only and name not in options.only.split(","):
                continue
            if run.clock.left < (0 if options.tiny else needed):
                found[name] = {"skipped": f"{run.clock.left:.0f} s left"}
                continue
            _measure(name, section, found, device, lambda: write_json(path, found))
            found[name]["seconds_of_the_run"] = round(time.monotonic() - began, 1)
            write_json(path, found)
            print(report.lines(name, found[name]), flush=True)
    return 0


def _measure(
    name: str,
    section: Callable[[], Iterator[Record]],
    found: Record,
    device: torch.device,
    write: Callable[[], None],
) -> None:
    """Run a section; one that fails is noted, and the others are measured all the same."""
    found[name] = {}
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    try:
        for record in section():
            found[name] |= record
            write()
    except Exception as error:  # whatever it is, the device's time is short
        traceback.print_exc()
        found[name]["failed"] = f"{type(error).__name__}: {error}"[:2000]
    if device.type == "cuda":
        found[name]["peak_memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    made.add_argument("--minutes", type=float, default=8.0, help="how long the run may take")
    made.add_argument("--only", default="", help="sections, separated by commas")
    made.add_argument("--tiny", action="store_true", help="tiny models: to try the benchmark itself")
    made.add_argument("--json", type=Path, help=f"default: {results_path('gpu')}; another with --tiny")
    return made


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    sys.exit(main())
