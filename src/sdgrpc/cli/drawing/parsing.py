"""Values of flags."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def parsed(flag: str, parse: Callable[[str], T], text: str | None) -> T | None:
    """Return a flag's value; raises ValueError that names the flag."""
    try:
        return None if text is None else parse(text)
    except ValueError as error:
        raise ValueError(f"{flag} {error}") from None


def parse_size(text: str | None) -> tuple[int, int]:
    """Return the width and height of `512x768`; 0, which is a default, for what is left out.

    Raises:
        ValueError: `text` does not have that form.

    """
    if text is None:
        return 0, 0
    match = re.fullmatch(r"(\d*)[xX](\d*)", text)
    if match is None or not any(match.groups()):
        raise ValueError(f"--size {text}: write WIDTHxHEIGHT, such as 128x128, or one of them, as in 128x")
    return int(match[1] or 0), int(match[2] or 0)
