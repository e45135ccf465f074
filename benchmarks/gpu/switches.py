"""LoRA sets: new files, new sets of known files, sets that are there; beside diffusers."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from typing import Any

import torch

from benchmarks.gpu.subject import Subject
from benchmarks.gpu.timing import Clock, timed
from benchmarks.lora_sets.files import SINGLE, write
from sdgrpc.domain import LoraRef
from sdgrpc.engine.models.device_options import DeviceOptions
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.lora.fusing.cache import Lease
from sdgrpc.lora.store.library import LoraLibrary

Record = dict[str, Any]


class Ours:
    """A served model, and the files of its subject."""

    def __init__(self, subject: Subject, *, resident: bool) -> None:
        options = DeviceOptions(compile="off", resident_factors="on" if resident else "off")
        self.served = ServedModel.of(subject.model, lora_cache_bytes=16 << 30, options=options)
        self._library, self._folder = LoraLibrary([subject.folder]), subject.folder

    def acquire(self, names: Sequence[str], strength: float) -> Lease:
        """Return a set."""
        refs = [LoraRef(name=one, strength=strength, text_encoder_strength=strength) for one in names]
        return self.served.sets.acquire([(self._library.find(ref), ref) for ref in refs])

    def use(self, lease: Lease) -> None:
        """Have every network compute with it."""
        for component in self.served.switches:
            self.served.use(component, lease)


@torch.inference_mode()
def switches(subject: Subject, *, resident: bool) -> Record:
    """Median seconds of each kind of switch, to a device that has done all of it.

    The files are in the page cache: they were written just now.
    """
    ours, device, names = Ours(subject, resident=resident), subject.model.device, subject.loras
    leases: dict[str, Lease] = {}

    def new(name: str, strength: float) -> None:
        lease = ours.acquire([name], strength)
        ours.use(lease)
        leases[name] = lease

    def again(name: str) -> None:
        ours.use(leases[name])

    def pair(one: str, other: str) -> None:
        with ours.acquire([one, other], 0.7) as lease:
            ours.use(lease)

    times: dict[str, list[float]] = {
        "miss: a file that is new": [timed(lambda n=n: new(n, 0.8), device) for n in names]  # type: ignore[misc]
    }
    times["another strength"] = [timed(lambda n=n: new(n, 0.6), device) for n in names]  # type: ignore[misc]
    times["hit: acquire and use"] = [timed(lambda n=n: new(n, 0.6), device) for n in names]  # type: ignore[misc]
    times["use alone"] = [timed(lambda n=n: again(n), device) for n in (*names, *names)]  # type: ignore[misc]
    times["two known files, new set"] = [
        timed(lambda n=n, m=m: pair(n, m), device)  # type: ignore[misc]
        for n, m in itertools.pairwise(names)
    ]
    held = max(lease.overlay.nbytes for lease in leases.values())
    record: Record = _summary(times) | {"largest_set_bytes": held}
    if ours.served.resident is not None:
        record |= {"files": ours.served.resident.count, "factor_bytes": ours.served.resident.nbytes}
    for lease in leases.values():
        lease.release()
    ours.served.restore()
    return record


@torch.inference_mode()
def diffusers_switches(subject: Subject, clock: Clock) -> Record:
    """The same with diffusers: load and fuse, load alone, go from a loaded set to another, hotswap."""
    pipe, device, names = subject.pipeline(own_weights=True), subject.model.device, subject.loras
    times: dict[str, list[float]] = {}

    def note(what: str, work: Any) -> None:  # noqa: ANN401 - any call
        times.setdefault(what, []).append(timed(work, device))

    def load(name: str, **options: Any) -> None:  # noqa: ANN401 - diffusers' own
        pipe.load_lora_weights(
            subject.folder,
            weight_name=f"{name}.safetensors",
            adapter_name=options.pop("key", name),
            **options,
        )

    for name in names[:3]:
        if clock.left < 20:
            break
        note("load", lambda name=name: load(name))
        pipe.set_adapters([name], [0.8])
        note("fuse", pipe.fuse_lora)
        note("unfuse", pipe.unfuse_lora)
        note("unload", pipe.unload_lora_weights)
    alike = [f"{subject.name}-unet{number}" for number in range(3)]  # diffusers swaps no text encoder's
    for seed, name in enumerate(alike):
        write(SINGLE, {"unet": subject.model.unet}, subject.folder / f"{name}.safetensors", 100 + seed)
    load(alike[0], key="one")
    for name in alike[1:]:
        if clock.left > 15:
            note("hotswap", lambda name=name: load(name, key="one", hotswap=True))
    return _summary(times)


def _summary(times: dict[str, list[float]]) -> Record:
    middle = {name: statistics.median(values) for name, values in times.items() if values}
    spread = {name: [min(values), max(values)] for name, values in times.items() if values}
    return {"seconds": middle, "range": spread}
