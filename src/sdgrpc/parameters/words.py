"""The textual inversions of a picture beside those that a server has."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator

from sdgrpc.parameters.writing import without_marks

DIGITS = 12
"""Of a hash in a sentence, as A1111 writes it."""


def missing_words(used: Iterable[tuple[str, str]], known: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a sentence for each textual inversion that will not be as in the picture.

    `used` are the picture's names with what it has of their SHA-256, `known` the server's with theirs.
    """
    here: dict[str, set[str]] = defaultdict(set)
    for name, sha256 in known:
        here[without_marks(name).lower()].add(sha256)
    for name, digits in used:
        found = here.get(name.lower())
        if not found:
            yield f"the server has no textual inversion {name!r} ({digits[:DIGITS]}); it is drawn as text"
        elif digits and not any(sha256.startswith(digits) for sha256 in found):
            yield f"the textual inversion {name!r} here is another file than the picture's"
