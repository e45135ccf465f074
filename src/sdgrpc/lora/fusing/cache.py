"""LoRA sets, fused once: a cache of overlays, bounded in bytes."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sdgrpc.domain import LoraRef, ResidentLora, ResidentSet
from sdgrpc.lora.bases.names import NameIndex
from sdgrpc.lora.fusing.fuser import Parameter, Plan
from sdgrpc.lora.fusing.lease import Lease
from sdgrpc.lora.fusing.lora_set import identify, residents
from sdgrpc.lora.fusing.maker import FusedSet, SetMaker
from sdgrpc.lora.fusing.overlay import Overlay, OverlaySwitch
from sdgrpc.lora.fusing.spare import Buffers
from sdgrpc.lora.store.contents import LoraFile

__all__ = ["FusedSets", "Lease", "Overlay", "OverlaySwitch", "SetStats"]


@dataclass(frozen=True, slots=True)
class SetStats:
    """What the cache holds now, and how many sets it ever fused."""

    sets: int
    bytes: int
    fuse_count: int


class Entry:
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
    than `capacity_bytes` meanwhile.

    Args:
        components: `unet`, `text_encoder`, `text_encoder_2` -> the module. Their parameters are read, never
            written, and must be the pristine ones now.
        base: what the model is: `sd15`, `sd2`, `sdxl` or `embedded`.
        capacity_bytes: how much the sets may hold together.

    """

    def __init__(self, components: Mapping[str, nn.Module], *, base: str, capacity_bytes: int) -> None:
        self._capacity = capacity_bytes
        self._maker = SetMaker(components, base=base)
        self._entries: OrderedDict[str, Entry] = OrderedDict()  # the least recently used first
        self._spare = Buffers()
        self._lock = threading.Lock()
        self._fuse_count = 0

    def acquire(self, members: Sequence[tuple[LoraFile, LoraRef]]) -> Lease:
        """Return the fused set of these files at these strengths; blocks while it is made.

        Raises:
            LoraMalformed, LoraUnsupported, LoraIncompatible: a file cannot be used, or `strict` was asked for
                and a tensor finds no place.

        """
        started = time.perf_counter()
        active = [(file, ref) for file, ref in members if ref.strength or ref.text_encoder_strength]
        if not active:
            reports = tuple(self._maker.report(file, ref, {}) for file, ref in members)
            return Lease("", Overlay({}), reports, cached=False, fuse_seconds=0.0)
        set_id = identify(active)
        entry, is_new = self._join(set_id, active)
        try:
            if is_new:
                self._make(set_id, entry, active)
            fused = entry.future.result()
            reports = tuple(self._maker.report(file, ref, fused.reports) for file, ref in members)
        except BaseException:
            self._leave(entry)
            raise
        seconds = time.perf_counter() - started if is_new else 0.0
        return Lease(
            set_id,
            fused.overlay,
            reports,
            cached=not is_new,
            fuse_seconds=seconds,
            prompt_part=fused.prompt_part,
            on_release=lambda: self._leave(entry),
        )

    def stats(self) -> SetStats:
        """Return what is held now."""
        with self._lock:
            nbytes = sum(entry.nbytes for entry in self._entries.values())
            return SetStats(len(self._entries), nbytes, self._fuse_count)

    def _join(self, set_id: str, active: Sequence[tuple[LoraFile, LoraRef]]) -> tuple[Entry, bool]:
        with self._lock:
            entry = self._entries.get(set_id)
            is_new = entry is None
            if entry is None:
                entry = self._entries[set_id] = Entry(residents(active))
            entry.users += 1
            self._entries.move_to_end(set_id)
            return entry, is_new

    def resident(self, model: str) -> tuple[ResidentSet, ...]:
        """Describe the sets that are held now, the least recently used first; `model` is what to call it."""
        with self._lock:
            return tuple(
                ResidentSet(set_id, model, entry.nbytes, entry.users > 0, entry.members)
                for set_id, entry in self._entries.items()
                if entry.future.done()
            )

    @property
    def capacity_bytes(self) -> int:
        """What the sets may hold together."""
        return self._capacity

    @property
    def names(self) -> NameIndex:
        """The names of the model's modules, which files are judged against."""
        return self._maker.names

    def _leave(self, entry: Entry) -> None:
        with self._lock:
            entry.users -= 1
            self._evict()
            self._trim()

    def _make(self, set_id: str, entry: Entry, active: Sequence[tuple[LoraFile, LoraRef]]) -> None:
        """Fuse a set and settle its future; a failure reaches all who wait and leaves no entry behind."""
        try:
            entry.future.set_result(self._fuse(entry, active))
        except BaseException as error:
            with self._lock:
                del self._entries[set_id]
            entry.future.set_exception(error)
            raise

    def _fuse(self, entry: Entry, active: Sequence[tuple[LoraFile, LoraRef]]) -> FusedSet:
        recipe = self._maker.plan(active)
        return self._maker.make(recipe, self._make_room(entry, recipe.planned))

    def _make_room(self, entry: Entry, planned: Plan) -> dict[Parameter, Tensor | None]:
        """Count a new set's bytes, evict others for them, and return what of their memory it can use."""
        wanted = {parameter: self._maker.pristine(parameter) for parameter in planned}
        # Views made in inference mode could not be written outside of it.
        with torch.inference_mode(False), self._lock:
            self._fuse_count += 1
            entry.nbytes = sum(weight.nbytes for weight in wanted.values())
            self._evict()
            spare = {parameter: self._spare.take(weight) for parameter, weight in wanted.items()}
            self._trim()
        return spare

    def _evict(self) -> None:
        """Drop unused sets, the least recently used first, until the rest has room. Needs the lock.

        What they held stays as spare memory until `_trim`.
        """
        held = sum(entry.nbytes for entry in self._entries.values())
        for set_id, entry in list(self._entries.items()):
            if held <= self._capacity:
                break
            if entry.users == 0:
                del self._entries[set_id]
                held -= entry.nbytes
                self._spare.give(entry.future.result().overlay)

    def _trim(self) -> None:
        """Keep no more spare memory than there is room for beside the sets. Needs the lock."""
        held = sum(entry.nbytes for entry in self._entries.values())
        self._spare.trim(max(0, self._capacity - held))
