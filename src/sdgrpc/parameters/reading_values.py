"""Single values of a picture's text."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sdgrpc.domain import ResizeMode
from sdgrpc.parameters.names import RESIZES
from sdgrpc.prompting.tags import NUMBER


@dataclass
class Values:
    """The pairs that were not looked at yet, and what was wrong with others."""

    left: dict[str, str]
    wrong: list[str] = field(default_factory=list)

    def text(self, key: str, default: str = "") -> str:
        """The value as it stands."""
        return self.left.pop(key, default)

    def read(self, key: str, read: Callable[[str], Any]) -> Any:  # noqa: ANN401 - whatever `read` gives
        """The value as `read` has it; None where there is none, or where it raises ValueError."""
        if key not in self.left:
            return None
        value = self.left.pop(key)
        try:
            return read(value)
        except (ValueError, KeyError):
            self.wrong.append(f"{key}: {cut(value)}")
            return None


def whole(text: str) -> int:
    """A whole number; raises ValueError."""
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
        raise ValueError(text)
    return int(text)


def number(text: str) -> float:
    """A finite number; raises ValueError."""
    value = float(text) if NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def resize_mode_of(text: str) -> ResizeMode:
    """How a picture was brought to its size; raises ValueError."""
    if text.lower() not in RESIZES:
        raise ValueError(text)
    return RESIZES[text.lower()]


def equals(word: str) -> Callable[[str], bool]:
    """Whether a value is that word, in upper or lower case."""
    return lambda text: text.lower() == word


def layers(text: str) -> int:
    """Layers that were left out, one less than the web UI counts; raises ValueError."""
    return max(whole(text) - 1, 0)


def cut(text: str, length: int = 60) -> str:
    """The text, shortened to a length."""
    return text if len(text) <= length else f"{text[: length - 1]}…"
