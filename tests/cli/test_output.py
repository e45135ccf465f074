"""File names from a pattern."""

from __future__ import annotations

from pathlib import Path

import pytest

from sdgrpc.cli.output import OutputPattern


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("a.png", 1, "a.png"),
        ("a.png", 2, "a-1.png"),
        ("a-{seed}.png", 2, "a-8.png"),
        ("{index}/a.JPG", 2, "1/a.JPG"),
        ("{seed}-{index}.webp", 1, "8-1.webp"),
    ],
)
def test_names(text: str, count: int, name: str) -> None:
    """Fields are filled in, and several pictures never share a file."""
    assert OutputPattern(text).path(index=1, seed=8, count=count) == Path(name)


@pytest.mark.parametrize(
    ("text", "media_type"), [("a.png", "image/png"), ("a.JPEG", "image/jpeg"), ("a.webp", "image/webp")]
)
def test_the_suffix_is_the_format(text: str, media_type: str) -> None:
    """The format to ask the server for follows from the suffix."""
    assert OutputPattern(text).media_type == media_type


def test_unknown_suffixes_are_refused() -> None:
    """A format that the server does not write is refused at once."""
    with pytest.raises(ValueError, match=r"must end in \.png"):
        OutputPattern("a.tiff")
