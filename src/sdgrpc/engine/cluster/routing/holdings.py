"""What each replica holds, found by what is held."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Set
from dataclasses import dataclass

NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a job is quick with: its set fused, its files read, its model loaded.

    `set_key` is the same for jobs that use the same set of the same model; empty without LoRAs. `files` name
    the set's files in the same way on every replica.
    """

    model: str
    set_key: str = ""
    files: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Held:
    """The sets, files and models that a replica holds; `is_full` once another set drives one of them out."""

    sets: frozenset[str] = NONE
    files: frozenset[str] = NONE
    models: frozenset[str] = NONE
    is_full: bool = False


class Holders:
    """One kind of thing, and who holds it."""

    def __init__(self) -> None:
        self._held: dict[str, set[str]] = {}
        self._holders: defaultdict[str, set[str]] = defaultdict(set)

    def replace(self, name: str, things: Collection[str]) -> None:
        """Note all that a replica holds."""
        held, now = self._held.setdefault(name, set()), set(things)
        for thing in held - now:
            self._holders[thing].discard(name)
            if not self._holders[thing]:
                del self._holders[thing]
        for thing in now - held:
            self._holders[thing].add(name)
        self._held[name] = now

    def add(self, name: str, things: Iterable[str]) -> None:
        """Note what a replica is about to hold."""
        held = self._held.setdefault(name, set())
        for thing in things:
            held.add(thing)
            self._holders[thing].add(name)

    def remove(self, name: str) -> None:
        """Forget a replica; does nothing where it is not known."""
        self.replace(name, ())
        del self._held[name]

    def of(self, thing: str) -> Set[str]:
        """Return who holds it."""
        return self._holders.get(thing, NONE)

    def count(self, things: Iterable[str]) -> Counter[str]:
        """Return how many of the things each replica holds that holds any."""
        return Counter(name for thing in things for name in self.of(thing))
