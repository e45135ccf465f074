r"""Prompt syntax of A1111's web UI that is not drawn: composition, AND as a word in capitals.

A backslash before AND makes text of it. The grammar is that of `re_AND` in `modules/prompt_parser.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

COMPOSITION = r"holds AND (composition), which is not drawn. Write `and`, or \AND for the word in capitals"

_AND = re.compile(r"\\AND\b|\\.|\b(?P<word>AND)\b", re.DOTALL)


def refused_syntax(text: str) -> Iterator[str]:
    """Yield a sentence where a prompt without tags holds syntax that is not drawn.

    In a negative prompt AND is a word: ask about prompts alone.
    """
    if any(match["word"] for match in _AND.finditer(text)):
        yield COMPOSITION
