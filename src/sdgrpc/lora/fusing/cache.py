"""LoRA sets, fused once: a cache of overlays, bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import astuple, dataclass, replace
from functools import partial
from weakref import WeakMethod

import torch
from torch import Tensor, nn

from sdgrpc.domain import LoraRef, LoraReport, ResidentLora, ResidentSet
from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.fusing.lease import Lease
from sdgrpc.lora.fusing.lora_set import LoraSet
from sdgrpc.lora.fusing.maker import FusedSet, Resident, SetMaker
from sdgrpc.lora.fusing.overlay import Overlay, OverlaySwitch
from sdgrpc.lora.fusing.placed_file import Parameter
from sdgrpc.lora.fusing.spare import Buffers, in_background, touched
from sdgrpc.lora.store.contents import FoundLora

__all__ = ["FusedSets", "Lease", "Overlay", "OverlaySwitch", "SetStats"]


@dataclass(frozen=True, slots=True)
class SetStats:
    """What the cache holds now, and since its start: sets fused, found, not found, and evicted."""

    sets: int = 0
    bytes: int = 0
    fuse_count: int = 0
    hits: int = 0
    misses: int = 0
    evictions: int = 0

    def __add__(self, other: SetStats) -> SetStats:
        return SetStats(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def past(self) -> SetStats:
        """Return what stays true once the cache is gone; the sets that it held count as evicted."""
        return replace(self, sets=0, bytes=0, evictions=self.evictions + self.sets)


class CachedSet:
    """A set's place in the cache: its users, its bytes once known, and the set once made."""

    def __init__(self, members: tuple[ResidentLora, ...]) -> None:
        self.future: Future[FusedSet] = Future()
        self.users = 0
        self.nbytes = 0
        self.members = members


class FusedSets:
    """Fuses LoRA sets for one model, each once, and keeps them while there is room. Thread safe.

    Two that ask for the same missing set cause one fuse. The least recently used sets make room for a new one
    before it is made, and their memory is used again; one in use is never evicted, so the cache may hold more
    than `capacity_bytes` meanwhile. Once a set was made, memory for another like it is made ready beside,
    within the same bound: its page faults take longer than the arithmetic.

    Args:
        components: `unet`, `text_encoder`, `text_encoder_2` -> the module. Their parameters are read, never
            written, and must be the pristine ones now.
        base: what the model is: `sd15`, `sd2`, `sdxl` or `embedded`.
        capacity_bytes: how much the sets may hold together.
        resident: where low-rank factors are kept on the device; sets then hold products instead of weights.

    """

    def __init__(
        self,
        components: Mapping[str, nn.Module],
        *,
        base: str,
        capacity_bytes: int,
        resident: Resident | None = None,
    ) -> None:
        self._capacity = capacity_bytes
        self._maker = SetMaker(components, base=base, resident=resident)
        self._sets: OrderedDict[str, CachedSet] = OrderedDict()  # the least recently used first
        self._spare = Buffers()
        self._making_ready: threading.Thread | None = None
        self._lock = threading.Lock()
        self._past = SetStats()

    def acquire(self, members: Sequence[tuple[FoundLora, LoraRef]]) -> Lease:
        """Return the fused set of these files at these strengths; blocks while it is made.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: a file cannot be used, or `strict` was asked for
                and a tensor finds no place.

        """
        started = time.perf_counter()
        wanted = LoraSet.of(members)
        if not wanted.members:
            return Lease("", Overlay({}), self._maker.reports(wanted, {}), cached=False, fuse_seconds=0.0)
        cached, is_new = self._join(wanted)
        try:
            if is_new:
                self._make(wanted, cached)
            fused = cached.future.result()
            reports = self._maker.reports(wanted, fused.reports)
        except BaseException:
            self._leave(cached)
            raise
        seconds = time.perf_counter() - started if is_new else 0.0
        return Lease(
            wanted.set_id,
            fused.overlay,
            reports,
            cached=not is_new,
            fuse_seconds=seconds,
            prompt_part=fused.prompt_part,
            on_release=lambda: self._leave(cached),
        )

    def describe(self, members: Sequence[tuple[FoundLora, LoraRef]]) -> tuple[LoraReport, ...]:
        """Say what files would do at these strengths, without fusing them; raises as `acquire`."""
        return self._maker.reports(LoraSet.of(members), {})

    def holds(self, members: Sequence[tuple[FoundLora, LoraRef]]) -> bool:
        """Tell whether a set is there, so that `acquire` does not have to make it."""
        wanted = LoraSet.of(members)
        with self._lock:
            cached = self._sets.get(wanted.set_id)
        return not wanted.members or (cached is not None and cached.future.done())

    def stats(self) -> SetStats:
        """Return what is held now."""
        with self._lock:
            nbytes = sum(cached.nbytes for cached in self._sets.values())
            return replace(self._past, sets=len(self._sets), bytes=nbytes)

    def _join(self, wanted: LoraSet) -> tuple[CachedSet, bool]:
        with self._lock:
            cached = self._sets.get(wanted.set_id)
            is_new = cached is None
            self._past += SetStats(misses=1) if is_new else SetStats(hits=1)
            if cached is None:
                cached = self._sets[wanted.set_id] = CachedSet(wanted.residents())
            cached.users += 1
            self._sets.move_to_end(wanted.set_id)
            return cached, is_new

    def resident(self, model: str) -> tuple[ResidentSet, ...]:
        """Describe the sets that are held now, the least recently used first; `model` is what to call it."""
        with self._lock:
            return tuple(
                ResidentSet(set_id, model, cached.nbytes, cached.users > 0, cached.members)
                for set_id, cached in self._sets.items()
                if cached.future.done()
            )

    @property
    def capacity_bytes(self) -> int:
        """What the sets may hold together."""
        return self._capacity

    @property
    def names(self) -> NameIndex:
        """The names of the model's modules, which files are judged against."""
        return self._maker.names

    def _leave(self, cached: CachedSet) -> None:
        with self._lock:
            cached.users -= 1
            self._evict()
            self._trim()

    def _make(self, wanted: LoraSet, cached: CachedSet) -> None:
        """Fuse a set and settle its future; a failure reaches all who wait and leaves nothing behind."""
        try:
            weights: list[Tensor] = []
            fused = self._maker.make(wanted, partial(self._make_room, cached, weights))
            with self._lock:
                cached.nbytes = fused.overlay.nbytes
            cached.future.set_result(fused)
            self._look_ahead(weights)
        except BaseException as error:
            with self._lock:
                del self._sets[wanted.set_id]
            cached.future.set_exception(error)
            raise

    def _make_room(
        self, cached: CachedSet, asked: list[Tensor], weights: Mapping[Parameter, Tensor]
    ) -> dict[Parameter, Tensor | None]:
        """Count a new set's bytes, evict others for them, and return what of their memory it can use."""
        # Views made in inference mode could not be written outside of it.
        with torch.inference_mode(False), self._lock:
            self._past += SetStats(fuse_count=1)
            cached.nbytes = sum(weight.nbytes for weight in weights.values())
            self._evict()
            spare = {parameter: self._spare.take(weight) for parameter, weight in weights.items()}
            self._trim()
        asked.extend(weights.values())
        return spare

    def _look_ahead(self, weights: Sequence[Tensor]) -> None:
        """Have memory made ready for another set that changes these."""
        with self._lock:
            if self._making_ready is None or not self._making_ready.is_alive():
                missing, ready = self._spare.missing(weights), WeakMethod(self._make_ready)
                # A model that is unloaded keeps no sets: the thread does not hold on to them.
                self._making_ready = in_background(lambda one: bool((made := ready()) and made(one)), missing)

    def _make_ready(self, like: Tensor) -> bool:
        """Make memory for one tensor ready; False if there is no room for it beside the sets."""
        with self._lock:
            held = sum(cached.nbytes for cached in self._sets.values())
            if held + self._spare.nbytes + like.nbytes > self._capacity:
                return False
        memory = touched(like)
        with self._lock:
            self._spare.add(memory)
            self._trim()
        return True

    def _evict(self) -> None:
        """Drop unused sets, the least recently used first, until the rest has room. Needs the lock.

        What they held stays as spare memory until `_trim`.
        """
        held = sum(cached.nbytes for cached in self._sets.values())
        for set_id, cached in list(self._sets.items()):
            if held <= self._capacity:
                break
            if cached.users == 0:
                del self._sets[set_id]
                self._past += SetStats(evictions=1)
                held -= cached.nbytes
                self._spare.give(cached.future.result().overlay)

    def _trim(self) -> None:
        """Keep no more spare memory than there is room for beside the sets. Needs the lock."""
        held = sum(cached.nbytes for cached in self._sets.values())
        self._spare.trim(max(0, self._capacity - held))
