"""The real command line with failpoints: faults that a test asks for, at places that have names.

`python -m tests.faults.launcher CONTROL serve …` wraps functions of the engine and then runs `sdgrpc`. Before
each call of one it reads the file CONTROL: `WHERE WHAT`, or nothing. The package itself has no failpoints, so
none can be reached in production.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from sdgrpc.cli import main

# The places by their names: a module, and in it a function or a class with a method.
PLACES = {
    "predict": ("sdgrpc.engine.runner", "predict"),
    "prepare": ("sdgrpc.engine.runner", "prepare"),
    "encode": ("sdgrpc.engine.runner", "encode"),
    "decode": ("sdgrpc.engine.runner", "decode"),
    "preview": ("sdgrpc.engine.pictures.previews", "preview_pictures"),
    "write": ("sdgrpc.images", "encode"),
    "acquire": ("sdgrpc.lora.fusing.cache", "FusedSets.acquire"),
    "find": ("sdgrpc.lora.store.library", "LoraLibrary.find"),
    "list": ("sdgrpc.lora.describing.listing", "LoraCatalog.page"),
    "describe": ("sdgrpc.lora.describing.listing", "LoraCatalog.details"),
    "load": ("sdgrpc.diffusion.checkpoints.loading", "OpenModel.load"),
    "choose": ("sdgrpc.engine.scheduler", "StepScheduler.next_batch"),
}

ILLEGAL = "CUDA error: an illegal memory access was encountered"
ASSERT = "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously reported"
LAUNCH = "CUDA error: unspecified launch failure"
ECC = "CUDA error: uncorrectable ECC error encountered"


class Failpoints:
    """Does what the control file says at the place that it names."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self._done = ""  # what was to happen once and has

    def reach(self, place: str, given: object = None) -> None:
        """Do what is to happen here now, if anything; `given` are the function's arguments."""
        order = self._order()
        where, _, what = order.partition(" ")
        if where != place:
            return
        if what in ("oom1", "mem", "bug", "quote") and order == self._done:
            return
        self._done = order
        if what == "quote":
            self._quote(given)
        getattr(self, f"_{what}")(place)

    def _order(self) -> str:
        try:
            order = self._control.read_text("utf-8").strip()
        except FileNotFoundError:
            order = ""
        if not order:
            self._done = ""
        return order

    def _oom1(self, _place: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    _oom = _oom1

    def _mem(self, _place: str) -> None:
        raise MemoryError

    def _bug(self, place: str) -> None:
        raise ValueError(f"a bug in {place}")

    def _quote(self, given: object) -> None:
        raise ValueError(f"cannot handle {given!r}")

    def _cuda(self, _place: str) -> None:
        raise RuntimeError(ILLEGAL)

    def _assert(self, _place: str) -> None:
        raise torch.AcceleratorError(ASSERT)

    def _launch(self, _place: str) -> None:
        raise torch.AcceleratorError(LAUNCH)

    def _ecc(self, _place: str) -> None:
        raise RuntimeError(ECC)

    def _die(self, _place: str) -> None:
        raise SystemExit

    def _slow(self, _place: str) -> None:
        time.sleep(0.5)

    def _hang(self, place: str) -> None:
        self._control.with_suffix(".reached").touch()
        while self._order() == f"{place} hang":
            time.sleep(0.02)


def wrap(failpoints: Failpoints) -> None:
    """Put the failpoints before every place."""
    for name, (module, path) in PLACES.items():
        owner: Any = importlib.import_module(module)
        *classes, function = path.split(".")
        for each in classes:
            owner = getattr(owner, each)
        setattr(owner, function, _wrapped(failpoints, name, getattr(owner, function)))


def _wrapped(failpoints: Failpoints, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def reached(*arguments: Any, **named: Any) -> Any:
        failpoints.reach(name, (arguments, named))
        return function(*arguments, **named)

    return reached


if __name__ == "__main__":
    control, *arguments = sys.argv[1:]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wrap(Failpoints(Path(control)))
    sys.argv = ["sdgrpc", *arguments]
    main()
