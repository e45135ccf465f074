"""The text's last line, `Key: value, Key: "quoted, value", …`, and the prompts before it.

As `modules/infotext_utils.py` of https://github.com/AUTOMATIC1111/stable-diffusion-webui has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

NEGATIVE = "Negative prompt:"
LEAST_PAIRS = 3
"""A last line of fewer pairs is prompt."""

_PAIR = re.compile(r'\s*(?P<key>\w[\w \-/]{1,80}):\s*(?P<value>"(?:\\.|[^\\"])*"|[^,]*)(?:,|$)')


class Sections(NamedTuple):
    """A text's prompts as they stand in it, and the pairs of its last line."""

    prompt: str
    negative_prompt: str
    values: Mapping[str, str]


def joined(values: Mapping[str, object]) -> str:
    """The line of values."""
    return ", ".join(f"{key}: {quoted(value)}" for key, value in values.items())


def quoted(value: object) -> str:
    """The value as text, in JSON's quotes if it would be read as something else without."""
    text = str(value)
    plain = not any(mark in text for mark in ",\n:") and text == text.strip() and text[:1] != '"'
    return text if plain else json.dumps(text, ensure_ascii=False)


def sections(text: str) -> Sections:
    """Split a text; any text has sections, and one without a last line of values is prompt alone."""
    *lines, last = text.strip().split("\n")
    pairs = {match["key"]: _unquoted(match["value"]) for match in _PAIR.finditer(last)}
    if len(pairs) < LEAST_PAIRS:
        lines, pairs = [*lines, last], {}
    prompts: list[list[str]] = [[], []]
    negative = False
    for raw in lines:
        line = raw.strip()
        if line.startswith(NEGATIVE):
            negative, line = True, line.removeprefix(NEGATIVE).strip()
        prompts[negative].append(line)
    prompt, negative_prompt = ("\n".join(part).strip("\n") for part in prompts)
    return Sections(prompt, negative_prompt, pairs)


def _unquoted(value: str) -> str:
    if not (len(value) > 1 and value[0] == value[-1] == '"'):
        return value
    try:
        return str(json.loads(value))
    except ValueError:
        return value
