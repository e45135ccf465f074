"""Which names may have been meant by one that is not there."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def suggestion(name: str, names: Sequence[str]) -> str:
    """Return the end of a sentence about a name that is none of these."""
    wanted = stem_of(name)
    near = [candidate for candidate in names if wanted and wanted in stem_of(candidate)]
    if not near:
        close = difflib.get_close_matches(wanted, map(stem_of, names), n=3, cutoff=0.5)
        near = [candidate for candidate in names if stem_of(candidate) in close]
    near = near[:3]
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else f"; there are {len(names)} others"


def stem_of(name: str) -> str:
    """Return the last part of a name, in lower case, without the ending."""
    return name.rpartition("/")[2].lower().removesuffix(".safetensors")
