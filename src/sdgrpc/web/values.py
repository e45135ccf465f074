"""One value of a body, checked: JSON's kinds, and the texts that forms have instead."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from enum import Enum

from sdgrpc.web.failures import Refused

Reader = Callable[[str, object], object]
"""Returns the value of a key; raises Refused with its name."""

_FLOAT32 = 3.4028234663852886e38
_WORDS = {"true": True, "false": False, "1": True, "0": False}


def text(key: str, value: object) -> str:
    """Return a text that can be sent."""
    if not isinstance(value, str):
        raise Refused(f"{key} is a text, not {kind(value)}", key, "invalid_type")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused(f"{key} has half of a surrogate pair, which is no character", key) from None
    return value


def whole(low: int, high: int) -> Reader:
    """A reader of whole numbers from `low` to `high`."""

    def read(key: str, value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise Refused(f"{key} is a whole number, not {kind(value)}", key, "invalid_type")
        if not low <= value <= high:
            raise Refused(f"{key} is from {low} to {high}", key)
        return value

    return read


def number(key: str, value: object) -> float:
    """Return a number that fits the contract's."""
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            raise Refused(f"{key} is a number", key, "invalid_type") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise Refused(f"{key} is a number, not {kind(value)}", key, "invalid_type")
    if not -_FLOAT32 <= value <= _FLOAT32:  # also false for what is not a number
        raise Refused(f"{key} is a finite number", key)
    return float(value)


def flag(key: str, value: object) -> bool:
    """Return true or false."""
    if isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    if not isinstance(value, bool):
        raise Refused(f"{key} is true or false, not {kind(value)}", key, "invalid_type")
    return value


def one_of(words: type[Enum] | Collection[str]) -> Reader:
    """A reader of one of some words."""
    known = [str(each.value) for each in words] if isinstance(words, type) else list(words)

    def read(key: str, value: object) -> str:
        if text(key, value) not in known:
            raise Refused(f"{key}: no {value!r}; there are {', '.join(known)}", key)
        return str(value)

    return read


def kind(value: object) -> str:
    """Return what JSON calls a value's kind."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN or infinite"
    return _KINDS.get(type(value), "a file")


_KINDS: Mapping[type, str] = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
}
