"""Textual inversions as the catalog tells of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EmbeddingInfo:
    """A file whose name is a word of prompts. `size` in bytes, `modified` in seconds since 1970.

    `base` is `sd15`, `sd2`, `sdxl`, `embedded` or `unknown`; `vectors` are as many tokens of a prompt.
    `refusal` says why the model that was asked about cannot use it, and is empty if it can.
    """

    name: str
    sha256: str
    size: int
    modified: float
    base: str
    vectors: int = 0
    refusal: str = ""

    @property
    def fits(self) -> bool:
        """Whether the model that was asked about can use it."""
        return not self.refusal
