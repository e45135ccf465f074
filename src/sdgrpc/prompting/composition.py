r"""Prompts joined by AND, as A1111's web UI reads them: `a cat :1.2 AND a dog :0.6`.

Each part is a prompt of its own, for which the UNet is asked by itself; what it answers is weighed and added
(Liu et al. 2022, https://arxiv.org/abs/2206.01714). A prompt is parted before anything else of it is read,
so that AND parts brackets too. A number after a colon at a part's end is its weight, 1 without; a prompt
without AND has no weight, since its last colon may be a clock's. A backslash before AND or the colon makes
text of it. The grammar is that of `re_AND` and `re_weight` in `modules/prompt_parser.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

MAX_PARTS = 8
"""Each takes a row of the UNet's batch for each image."""

MAX_PART_WEIGHT = 10.0
"""As for words; a clock's minutes would be, and overflow."""

_AND = re.compile(r"\\AND\b|\\.|\b(?P<word>AND)\b", re.DOTALL)
_WEIGHT = re.compile(r"(?<!\\)(?P<escaped>(?:\\\\)*):\s*(?P<weight>[-+]?(?:[0-9]+\.?|[0-9]*\.[0-9]+))$")


@dataclass(frozen=True, slots=True)
class Part:
    """What stands between two AND, and how much it counts; below 0 it is kept away from."""

    text: str
    weight: float = 1.0


def read_parts(prompt: str) -> tuple[Part, ...]:
    """Part a prompt without tags at each AND. Never raises; without AND it is one part as it stands."""
    texts, begin = [], 0
    for match in _AND.finditer(prompt):
        if match["word"]:
            texts.append(prompt[begin : match.start()])
            begin = match.end()
    if not texts:
        return (Part(prompt),)
    return tuple(map(_part, (*texts, prompt[begin:])))


def composition_faults(prompt: str) -> Iterator[str]:
    """Say what is wrong with how a prompt without tags is parted, without its words.

    In a negative prompt AND is a word: ask about prompts alone.
    """
    parts = read_parts(prompt)
    if len(parts) > MAX_PARTS:
        yield (
            f"joins {len(parts)} parts by AND; the most is {MAX_PARTS}. Leave some out, or write `and`, or "
            r"\AND for the word in capitals"
        )
    heavy = [part.weight for part in parts if abs(part.weight) > MAX_PART_WEIGHT]
    if heavy:
        yield (
            f"weighs a part of AND with {heavy[0]:.4g}; the most is {MAX_PART_WEIGHT:g}. "
            r"Write \: for a colon that is text"
        )


def _part(text: str) -> Part:
    text = text.strip()
    found = _WEIGHT.search(text)
    if found is None:
        return Part(text)
    return Part((text[: found.start()] + found["escaped"]).rstrip(), float(found["weight"]))
