"""Affinity with bounded load: a job goes where its LoRA set is, unless too many are there already."""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Mapping
from enum import Enum
from typing import NamedTuple

from sdgrpc.engine.cluster.routing.holdings import Held, Holders, Wanted
from sdgrpc.engine.cluster.routing.ring import Ring

FACTOR = 1.5


class Why(Enum):
    """What decided."""

    SET = "set"
    FILES = "files"
    MODEL = "model"
    RING = "ring"
    LOAD = "load"


class Choice(NamedTuple):
    """Where a job goes, and why."""

    name: str
    why: Why


class Router:
    """Chooses among replicas by what they hold and how many jobs they have.

    A replica takes at most ceil(factor · (jobs + 1) / replicas) jobs, the bound of consistent hashing with
    bounded loads (Mirrokni, Thorup, Zadimoghaddam, SODA 2018), while another is below it. Of the replicas
    within the bound, one that holds the job's set takes it; else one with the most of its files, else one
    with its model, and of several the first on the ring of the set's key, on which every front door agrees.
    A set that nobody holds drives out none, while a replica within the bound keeps sets that it has room for.
    A set whose holders are all full goes to the less loaded of two random replicas, which fuses it as well
    (Mitzenmacher, 2001).

    Not thread safe. It knows nothing of time, processes or networks.
    """

    def __init__(self, factor: float = FACTOR, chance: random.Random | None = None) -> None:
        if not factor >= 1:
            raise ValueError(f"factor: {factor} is below 1, with which not every job would find a replica")
        self._factor = factor
        self._chance = chance or random.Random()  # noqa: S311 - spreads load, guards nothing
        self._ring = Ring()
        self._loads: dict[str, int] = {}
        self._names: list[str] = []
        self._total = 0
        self._sets, self._files, self._models = Holders(), Holders(), Holders()
        self._full: set[str] = set()

    @property
    def loads(self) -> Mapping[str, int]:
        """The jobs of each replica that may be chosen."""
        return self._loads

    def add(self, name: str) -> None:
        """Let a replica be chosen; does nothing where it may be already."""
        if name not in self._loads:
            self._loads[name] = 0
            self._names.append(name)
            self._ring.add(name)

    def remove(self, name: str) -> None:
        """Choose a replica no more: it died or is being drained. Its jobs count no more either."""
        if name not in self._loads:
            return
        self._total -= self._loads.pop(name)
        self._names.remove(name)
        self._ring.remove(name)
        self._full.discard(name)
        for holders in (self._sets, self._files, self._models):
            holders.remove(name)

    def report(self, name: str, held: Held, load: int | None = None) -> None:
        """Note what a replica says that it holds, and how many jobs it has; None keeps the count."""
        if name not in self._loads:
            return
        self._sets.replace(name, held.sets)
        self._files.replace(name, held.files)
        self._models.replace(name, held.models)
        (self._full.add if held.is_full else self._full.discard)(name)
        if load is not None:
            self._total += load - self._loads[name]
            self._loads[name] = load

    def learn(self, name: str, wanted: Wanted) -> None:
        """Note that a replica holds a set, though it was not asked for by these names there."""
        if name in self._loads and wanted.set_key:
            self._sets.add(name, (wanted.set_key,))

    def begin(self, name: str, wanted: Wanted) -> None:
        """Count a job on a replica, which will hold what the job wants."""
        if name not in self._loads:
            return
        self._loads[name] += 1
        self._total += 1
        if wanted.set_key:
            self._sets.add(name, (wanted.set_key,))
        self._files.add(name, wanted.files)
        self._models.add(name, (wanted.model,))

    def end(self, name: str) -> None:
        """Count a job no more."""
        if self._loads.get(name, 0) > 0:
            self._loads[name] -= 1
            self._total -= 1

    def choose(self, wanted: Wanted, *, without: Collection[str] = ()) -> Choice | None:
        """Return where a job goes, none of `without`; None where there is no replica left."""
        names = [name for name in self._names if name not in without] if without else self._names
        if not names:
            return None
        if not wanted.set_key:
            return self._spread(names, wanted)
        holders = self._sets.of(wanted.set_key) - set(without)
        if holders:
            least = min(self._loads[name] for name in holders)
            name = self._ring.first(wanted.set_key, [one for one in holders if self._loads[one] == least])
            if self._has_room(name):
                return Choice(name, Why.SET)
            other = self._less_loaded(names)
            return Choice(other, Why.LOAD) if self._loads[other] < least else Choice(name, Why.SET)
        return self._unknown(wanted, names, without)

    def knows(self, wanted: Wanted) -> bool:
        """Whether some replica is known to hold the job's set, or the job has none."""
        return not wanted.set_key or bool(self._sets.of(wanted.set_key))

    def bound(self) -> int:
        """Return how many jobs a replica may have, the one that is being placed included."""
        return math.ceil(self._factor * (self._total + 1) / max(len(self._loads), 1))

    def _has_room(self, name: str) -> bool:
        return self._loads[name] + 1 <= self.bound()

    def _unknown(self, wanted: Wanted, names: list[str], without: Collection[str]) -> Choice:
        """Place a set that nobody is known to hold."""
        if any(name not in self._full and self._has_room(name) for name in names):
            without = {*without, *self._full}
        counts = self._files.count(wanted.files)
        roomy = {name: n for name, n in counts.items() if name not in without and self._has_room(name)}
        if roomy:
            most = max(roomy.values())
            best = [name for name, number in roomy.items() if number == most]
            return Choice(self._ring.first(wanted.set_key, best), Why.FILES)
        with_model, free = self._models.of(wanted.model), ""
        for name in self._ring.walk(wanted.set_key):
            if name in without or not self._has_room(name):
                continue
            if name in with_model:
                return Choice(name, Why.MODEL)
            free = free or name
            if not with_model:
                break
        return Choice(free, Why.RING) if free else Choice(self._less_loaded(names), Why.LOAD)

    def _spread(self, names: list[str], wanted: Wanted) -> Choice:
        """Place a job without LoRAs: where its model is, if there is room."""
        with_model = [name for name in names if name in self._models.of(wanted.model)]
        if with_model:
            name = self._less_loaded(with_model)
            if self._has_room(name):
                return Choice(name, Why.MODEL)
        return Choice(self._less_loaded(names), Why.LOAD)

    def _less_loaded(self, names: list[str]) -> str:
        """Return the less loaded of two random ones."""
        two = self._chance.sample(names, min(2, len(names)))
        return min(two, key=self._loads.__getitem__)
