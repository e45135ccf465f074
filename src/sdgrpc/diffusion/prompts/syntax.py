"""The prompt syntax of A1111's web UI: brackets weigh words, BREAK begins another chunk. No torch here.

`(word)` weighs 1.1, `[word]` 1/1.1, `(word:1.3)` 1.3; brackets inside each other multiply. A backslash takes
the meaning from the bracket or backslash after it, and vanishes. What is unbalanced is read as the web UI
reads it: a bracket that stays open weighs all that follows, one that closes nothing is text.
Source: https://github.com/AUTOMATIC1111/stable-diffusion-webui/wiki/Features, "Attention/emphasis".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

STRONGER, WEAKER = 1.1, 1 / 1.1

_MARK = re.compile(
    r"\\(?P<escaped>[()\[\]\\]?)"
    r"|:\s*(?P<weight>[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+))\s*\)"
    r"|(?P<bracket>[()\[\]])"
)
_BREAK = re.compile(r"\s*\bBREAK\b\s*")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of a prompt and what its tokens are weighed with."""

    text: str
    weight: float = 1.0


Section = tuple[Piece, ...]
"""What stands between two BREAKs."""


def parse(prompt: str) -> tuple[Section, ...]:
    """Read a prompt; without any syntax it is one section of one piece. Never raises.

    Neighbours of equal weight are one piece, so that only weights part words, never escapes.
    """
    reader = _Reader()
    end = 0
    for mark in _MARK.finditer(prompt):
        reader.read_text(prompt[end : mark.start()])
        end = mark.end()
        if mark["weight"] is not None:
            reader.close("(", float(mark["weight"]), mark[0])
        elif mark["bracket"] is None:
            reader.add(mark["escaped"])
        elif mark["bracket"] in "([":
            reader.open(mark["bracket"])
        elif mark["bracket"] == ")":
            reader.close("(", STRONGER, ")")
        else:
            reader.close("[", WEAKER, "]")
    reader.read_text(prompt[end:])
    return reader.sections()


class _Reader:
    """The pieces read so far (None for a BREAK), their weights, and where open brackets began."""

    def __init__(self) -> None:
        self._texts: list[str | None] = []
        self._weights: list[float] = []
        self._open: dict[str, list[int]] = {"(": [], "[": []}

    def add(self, text: str | None) -> None:
        if text == "":
            return
        self._texts.append(text)
        self._weights.append(1.0)

    def read_text(self, text: str) -> None:
        for number, part in enumerate(_BREAK.split(text)):
            if number:
                self.add(None)
            self.add(part)

    def open(self, bracket: str) -> None:
        self._open[bracket].append(len(self._texts))

    def close(self, bracket: str, weight: float, spelling: str) -> None:
        """Weigh what came since the last such bracket; without one the `spelling` is text."""
        if self._open[bracket]:
            self._weigh(self._open[bracket].pop(), weight)
        else:
            self.add(spelling)

    def sections(self) -> tuple[Section, ...]:
        """Close what is open, and join neighbours of equal weight."""
        for bracket, weight in (("(", STRONGER), ("[", WEAKER)):
            for start in self._open[bracket]:
                self._weigh(start, weight)
        found: list[list[Piece]] = [[]]
        for text, weight in zip(self._texts, self._weights, strict=True):
            section = found[-1]
            if text is None:
                found.append([])
            elif section and section[-1].weight == weight:
                section[-1] = Piece(section[-1].text + text, weight)
            else:
                section.append(Piece(text, weight))
        return tuple(map(tuple, found))

    def _weigh(self, start: int, weight: float) -> None:
        for index in range(start, len(self._weights)):
            self._weights[index] *= weight
