r"""Prompt syntax of A1111's web UI that is not drawn: editing, alternation and composition.

`[from:to:when]`, `[to:when]` and `[from::when]` with a number at the end, `[a|b]`, and AND as a word in
capitals. A backslash before `[`, `:`, `|` or AND makes text of it. `[word]` and `(word:1.2)` weigh, and are
none of these. The grammar is that of `schedule_parser` and `re_AND` in `modules/prompt_parser.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sdgrpc.prompting.tags import NUMBER

EDITING = (
    r"holds [from:to:when] (prompt editing), which is not drawn. Write \[ and \] for brackets that are text, "
    "(word:0.5) for a weight"
)
ALTERNATION = r"holds [a|b] (alternation), which is not drawn. Write \| for a bar that is text"
COMPOSITION = r"holds AND (composition), which is not drawn. Write `and`, or \AND for the word in capitals"

_EDITING = re.compile(rf"(?:[^:]*:)?[^:]*:\s*(?:{NUMBER.pattern})\s*")
_AND = re.compile(r"\\AND\b|\\.|\b(?P<word>AND)\b", re.DOTALL)
_MARK = re.compile(r"\\.|[\[\]()]", re.DOTALL)
_SOME = "x"
"""What stands for a bracket inside another, or for an escaped character."""


def refused_syntax(text: str, *, composes: bool = True) -> Iterator[str]:
    """Yield a sentence for each kind of syntax that a prompt without tags holds, and that is not drawn.

    `composes` is whether AND means anything: in a negative prompt it is a word.
    """
    groups = list(_square_groups(text))
    if any("|" not in group and _EDITING.fullmatch(group) for group in groups):
        yield EDITING
    if any("|" in group for group in groups):
        yield ALTERNATION
    if composes and any(match["word"] for match in _AND.finditer(text)):
        yield COMPOSITION


def _square_groups(text: str) -> Iterator[str]:
    """Yield what stands in each closed pair of square brackets itself, not in brackets inside of it."""
    stack: list[tuple[str, list[str]]] = [("", [])]
    end = 0
    for mark in _MARK.finditer(text):
        stack[-1][1].append(text[end : mark.start()])
        end = mark.end()
        if mark[0] in ("[", "("):
            stack.append((mark[0], []))
        elif mark[0] in ("]", ")"):
            opening = "[" if mark[0] == "]" else "("
            if any(bracket == opening for bracket, _ in stack):
                content = _closed(stack, opening)
                if opening == "[":
                    yield content
                stack[-1][1].append(_SOME)
        else:
            stack[-1][1].append(_SOME)


def _closed(stack: list[tuple[str, list[str]]], opening: str) -> str:
    """Take the innermost group of that bracket; what stayed open in it is its text."""
    parts: list[str] = []
    while True:
        bracket, own = stack.pop()
        parts = [*own, *parts]
        if bracket == opening:
            return "".join(parts)
