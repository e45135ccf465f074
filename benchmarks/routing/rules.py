"""The rules that are compared: each chooses a replica's name, and is told what happens."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from sdgrpc.engine.cluster.routing.holdings import Held, Wanted
from sdgrpc.engine.cluster.routing.ring import Ring
from sdgrpc.engine.cluster.routing.router import Router

FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0)


class Rule(Protocol):
    """What the simulation asks of a rule."""

    def choose(self, wanted: Wanted) -> str:
        """Choose, and count the job there."""
        ...

    def holds(self, name: str, held: Held) -> None:
        """Learn what a replica holds now."""
        ...

    def end(self, name: str) -> None:
        """Learn that a job has ended."""
        ...

    def change(self, *, joins: str = "", leaves: str = "") -> None:
        """Learn that a replica comes or goes."""
        ...


class Affine:
    """The router that serves."""

    def __init__(self, names: Iterable[str], factor: float) -> None:
        self.router = Router(factor, random.Random(0))
        for name in names:
            self.router.add(name)

    def choose(self, wanted: Wanted) -> str:
        """See `Rule`."""
        choice = self.router.choose(wanted)
        assert choice is not None  # noqa: S101 - there are replicas
        self.router.begin(choice.name, wanted)
        return choice.name

    def holds(self, name: str, held: Held) -> None:
        """See `Rule`."""
        self.router.report(name, held)

    def end(self, name: str) -> None:
        """See `Rule`."""
        self.router.end(name)

    def change(self, *, joins: str = "", leaves: str = "") -> None:
        """See `Rule`."""
        if joins:
            self.router.add(joins)
        self.router.remove(leaves)


class Simple:
    """A rule that looks at nothing but names, numbers of jobs and the set's name."""

    def __init__(self, names: Iterable[str], pick: Callable[[Simple, Wanted], str]) -> None:
        self.names, self._pick = list(names), pick
        self.loads: dict[str, int] = dict.fromkeys(self.names, 0)
        self.ring, self.chance, self.turn = Ring(), random.Random(0), 0
        for name in self.names:
            self.ring.add(name)

    def choose(self, wanted: Wanted) -> str:
        """See `Rule`."""
        name = self._pick(self, wanted)
        self.loads[name] += 1
        return name

    def holds(self, name: str, held: Held) -> None:
        """See `Rule`; it does not matter here."""

    def end(self, name: str) -> None:
        """See `Rule`."""
        if name in self.loads:
            self.loads[name] -= 1

    def change(self, *, joins: str = "", leaves: str = "") -> None:
        """See `Rule`."""
        if joins:
            self.loads[joins] = 0
            self.ring.add(joins)
        self.loads.pop(leaves, None)
        self.ring.remove(leaves)
        self.names = list(self.loads)


def in_turn(rule: Simple, wanted: Wanted) -> str:
    """Take the next replica."""
    del wanted
    rule.turn += 1
    return rule.names[rule.turn % len(rule.names)]


def rules(names: list[str]) -> Mapping[str, Callable[[], Rule]]:
    """Every rule by its name, to be made anew for each run."""
    simple: dict[str, Callable[[Simple, Wanted], str]] = {
        "random": lambda rule, _: rule.chance.choice(rule.names),
        "round robin": in_turn,
        "least load": lambda rule, _: min(rule.loads, key=rule.loads.__getitem__),
        "consistent hashing": lambda rule, wanted: next(rule.ring.walk(wanted.set_key)),
    }
    made: dict[str, Callable[[], Rule]] = {
        name: partial(Simple, names, pick) for name, pick in simple.items()
    }
    return made | {f"router {factor:g}": partial(Affine, names, factor) for factor in FACTORS}
