"""A ring of hashes: whoever knows the same replicas finds the same order of them for a key."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Collection, Iterator

POINTS = 64
"""Places of a replica on the ring; its share of the keys varies by about 1 / sqrt(POINTS)."""


def place_of(text: str) -> int:
    """Return a place on the ring, 0 to 2^64 - 1: the same in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


class Ring:
    """Consistent hashing: a replica that joins or leaves moves its own keys alone (Karger et al., 1997)."""

    def __init__(self) -> None:
        self._points: list[tuple[int, str]] = []
        self._of: dict[str, list[int]] = {}

    def add(self, name: str) -> None:
        """Give a replica its places; does nothing where it has them."""
        if name in self._of:
            return
        self._of[name] = sorted(place_of(f"{name} {number}") for number in range(POINTS))
        for point in self._of[name]:
            insort(self._points, (point, name))

    def remove(self, name: str) -> None:
        """Take a replica's places away; does nothing where it has none."""
        if self._of.pop(name, None) is not None:
            self._points = [point for point in self._points if point[1] != name]

    def walk(self, key: str) -> Iterator[str]:
        """Yield every replica once, in the key's order."""
        start, seen = bisect_left(self._points, (place_of(key), "")), set[str]()
        for number in range(len(self._points)):
            name = self._points[(start + number) % len(self._points)][1]
            if name not in seen:
                seen.add(name)
                yield name

    def first(self, key: str, names: Collection[str]) -> str:
        """Return which of some replicas comes first in the key's order: what `walk` would find.

        Raises:
            ValueError: there are none.

        """
        place = place_of(key)

        def distance(name: str) -> tuple[int, str]:
            points = self._of[name]
            ahead = bisect_left(points, place)
            return (points[ahead] if ahead < len(points) else points[0] + 2**64) - place, name

        return min(names, key=distance)
