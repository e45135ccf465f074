"""Prompts to chunks of 75 tokens, so that no prompt is cut."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from transformers import CLIPTokenizer

from sdgrpc.diffusion.prompts.syntax import Section

PLACEHOLDER = 0
"""The token id where learned vectors are put in; never the end, at which SDXL's second encoder pools."""


@dataclass(slots=True)
class Chunk:
    """Up to 75 token ids with their weights, and where which learned token begins."""

    ids: list[int] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    learned: list[tuple[int, str]] = field(default_factory=list)

    def add(self, ids: Sequence[int], weight: float) -> None:
        """Append tokens of one weight."""
        self.ids += ids
        self.weights += [weight] * len(ids)


@dataclass(frozen=True, slots=True)
class Word:
    """Some text of one weight, or the name of a learned token."""

    text: str
    weight: float
    is_learned: bool = False


class Names:
    """Finds the names of learned tokens in text: whole words, in upper or lower case, the longest first."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = sorted(names, key=lambda name: (-len(name), name))
        self._pattern = re.compile("|".join(map(_whole_word, self._names)), re.IGNORECASE)

    def words(self, text: str, weight: float) -> Iterator[Word]:
        """Cut text at the names in it."""
        end = 0
        if self._names:
            for found in self._pattern.finditer(text):
                yield Word(text[end : found.start()], weight)
                yield Word(self._names[(found.lastindex or 1) - 1], weight, is_learned=True)
                end = found.end()
        yield Word(text[end:], weight)


def _whole_word(name: str) -> str:
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.search(r"\w$", name) else ""
    return f"{before}({re.escape(name)}){after}"


def words_of(sections: Sequence[Section], names: Sequence[str]) -> list[list[Word]]:
    """Return the words of each section, learned tokens apart from text; nothing that is empty."""
    finder = Names(names)
    return [
        [word for piece in section for word in finder.words(piece.text, piece.weight) if word.text]
        for section in sections
    ]


def chunks_of(
    tokenizer: CLIPTokenizer, sections: Sequence[Sequence[Word]], lengths: Mapping[str, int]
) -> list[Chunk]:
    """Fill chunks with the words of each section; at least one.

    A chunk holds the tokenizer's length less begin and end. The vectors of a learned token stay together. A
    section begins with a chunk of its own, which is empty where the section is, but nothing follows the last.

    Args:
        tokenizer: of the text encoder that the chunks are for.
        sections: what stands between BREAKs.
        lengths: learned token -> how many vectors it has.

    """
    size = tokenizer.model_max_length - 2
    chunks = [Chunk()]
    for number, section in enumerate(sections):
        if number and (section or number < len(sections) - 1):
            chunks.append(Chunk())
        for word in section:
            if word.is_learned:
                _add_learned(chunks, word, lengths[word.text], size)
            else:
                _add_text(chunks, tokenizer, word, size)
    return chunks


def _add_learned(chunks: list[Chunk], word: Word, length: int, size: int) -> None:
    if len(chunks[-1].ids) + length > size:
        chunks.append(Chunk())
    chunk = chunks[-1]
    chunk.learned.append((len(chunk.ids), word.text))
    chunk.add([PLACEHOLDER] * length, word.weight)


def _add_text(chunks: list[Chunk], tokenizer: CLIPTokenizer, word: Word, size: int) -> None:
    ids = tokenizer(word.text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    while ids:
        if len(chunks[-1].ids) == size:
            chunks.append(Chunk())
        room = size - len(chunks[-1].ids)
        chunks[-1].add(ids[:room], word.weight)
        ids = ids[room:]
