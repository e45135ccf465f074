"""What a job is quick with, and under which names replicas have it."""

from __future__ import annotations

import hashlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Sequence

from sdgrpc.domain import LoraRef, ModelState, ResidentSet
from sdgrpc.engine.cluster.routing.holdings import Held, Wanted

MOST_SETS = 10_000
"""Sets whose ids are remembered."""


def wanted_by(model: str, loras: Sequence[LoraRef]) -> Wanted:
    """Name a job's set by its files and strengths: a wrong guess costs a fused copy, nothing else.

    Blocks while a file that a request brings is hashed.
    """
    if not loras:
        return Wanted(model)
    files = [lora.name or lora.sha256 or hashlib.sha256(lora.content).hexdigest() for lora in loras]
    lines = sorted(
        f"{file} {lora.strength} {lora.text_encoder_strength} {lora.block_weights} {lora.start} {lora.end}"
        for file, lora in zip(files, loras, strict=True)
    )
    return Wanted(model, "\n".join([model, *lines]), frozenset(files))


class SetNames:
    """Which id a set got from the engine that fused it: reports have ids, requests files and strengths.

    And what the jobs of each replica want, which it will hold though its report does not say so yet.
    """

    def __init__(self) -> None:
        self._ids: OrderedDict[str, tuple[Wanted, str]] = OrderedDict()
        self._keys: defaultdict[str, set[str]] = defaultdict(set)
        self._wanted: defaultdict[str, Counter[Wanted]] = defaultdict(Counter)

    def begin(self, name: str, wanted: Wanted) -> None:
        """Note what a job of a replica wants."""
        self._wanted[name][wanted] += 1

    def end(self, name: str, wanted: Wanted) -> None:
        """Note that the job has left the replica."""
        self._wanted[name][wanted] -= 1
        self._wanted[name] += Counter()  # without those that are not wanted any more

    def learn(self, wanted: Wanted, set_id: str) -> None:
        """Note the id of a job's set; nothing is to be noted without LoRAs."""
        if not wanted.set_key or not set_id:
            return
        self._forget(wanted.set_key)
        self._ids[wanted.set_key] = wanted, set_id
        self._keys[set_id].add(wanted.set_key)
        while len(self._ids) > MOST_SETS:
            self._forget(next(iter(self._ids)))

    def _forget(self, key: str) -> None:
        if (known := self._ids.pop(key, None)) is not None:
            self._keys[known[1]].discard(key)
            if not self._keys[known[1]]:
                del self._keys[known[1]]

    def held(self, name: str, sets: Sequence[ResidentSet], states: Sequence[ModelState]) -> Held:
        """Return what a replica holds or is about to, by the names that jobs use."""
        keys = [key for one in {one.set_id for one in sets} for key in self._keys.get(one, ())]
        wanted = [*(self._ids[key][0] for key in keys), *self._wanted[name]]
        models = [state.info.name for state in states if state.resident]
        return Held(
            frozenset(one.set_key for one in wanted if one.set_key),
            frozenset(file for one in wanted for file in one.files),
            frozenset([*models, *(one.model for one in wanted)]),
        )
