"""The words that a LoRA's author trained it on, from the metadata that trainers write."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from sdgrpc.lora.store.beside import Beside

MOST = 20
LONGEST = 200  # characters; longer ones are captions, not words

PHRASE = "modelspec.trigger_phrase"
FREQUENCY = "ss_tag_frequency"

_FOLDER = re.compile(r"\d+_(?P<trigger>.*\S)")


def trigger_words(metadata: Mapping[str, str]) -> tuple[str, ...]:
    """Return at most 20 words or phrases: what the author names, then what was trained on most often.

    `modelspec.trigger_phrase` (words between commas) goes first, then the names of the training folders,
    `16_smf girl` (repeats, trigger), then the tags of `ss_tag_frequency`, a JSON text
    `{folder: {tag: count}}`, by their counts. What is not of that form says nothing.
    """
    folders = _folders(metadata.get(FREQUENCY, ""))
    words: dict[str, str] = {}
    for word in (*metadata.get(PHRASE, "").split(","), *_named(folders), *_counted(folders)):
        clean = " ".join(word.split())
        if 0 < len(clean) <= LONGEST:
            words.setdefault(clean.casefold(), clean)
    return tuple(words.values())[:MOST]


def joined_words(beside: Beside, words: tuple[str, ...]) -> tuple[str, ...]:
    """Return the words that lie beside a file before its own, each once; at most 20."""
    found: dict[str, str] = {}
    for word in (*beside.trigger_words, *words):
        found.setdefault(word.casefold(), word)
    return tuple(found.values())[:MOST]


def _folders(text: str) -> dict[str, dict[str, int]]:
    try:
        parsed = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    found = parsed.items() if isinstance(parsed, dict) else ()
    return {
        folder: {tag: count for tag, count in tags.items() if type(count) is int}
        for folder, tags in found
        if isinstance(tags, dict)
    }


def _named(folders: Mapping[str, object]) -> Iterator[str]:
    """Yield the triggers that stand in the folders' names."""
    for folder in folders:
        if found := _FOLDER.fullmatch(folder.strip()):
            yield found["trigger"]


def _counted(folders: Mapping[str, Mapping[str, int]]) -> list[str]:
    counts: Counter[str] = Counter()
    for tags in folders.values():
        counts.update(tags)
    return [tag for tag, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


PICTURES = frozenset({"ssmd_cover_images", "modelspec.thumbnail"})
"""Metadata that holds pictures, of no use to a reader of text."""


def without_pictures(metadata: Mapping[str, str]) -> dict[str, str]:
    """Return the metadata that a reader of text can use."""
    return {key: text for key, text in metadata.items() if key not in PICTURES}
