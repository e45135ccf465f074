r"""Prompt editing and alternation, as A1111's web UI reads them: what a prompt says in each step.

`[from:to:when]` says `from` and later `to`, `[to:when]` nothing and later `to`, `[from::when]` `from` and
later nothing. `when` is the last step that says `from`; with a point in it, a share of the steps. `[a|b|c]`
says another of them in each step, in turn. All may stand inside each other and in round brackets. A backslash
before `[`, `:`, `|` or `]` makes text of it, and what is not whole is text: `[word]` weighs. The grammar and
the schedule are those of `modules/prompt_parser.py` of
https://github.com/AUTOMATIC1111/stable-diffusion-webui, and of its wiki, "Prompt editing".
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from sdgrpc.prompting.tags import NUMBER

_WHEN = re.compile(rf"\s*({NUMBER.pattern})\s*")
_MARK = re.compile(r"\\.|[\[\]():|]", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Edit:
    """`[before:after:when]`; `when` is the number as it is written."""

    before: Text
    after: Text
    when: str

    def last(self, steps: int, steps_before: int) -> int:
        """Return the last step, from 1, that says `before`; 0 or less for none.

        In a pass after another one of `steps_before` steps, whole numbers count on from that pass's and
        shares from 1, as in the web UI's second pass.
        """
        number = float(self.when)
        if "." in self.when:
            number = (number - bool(steps_before)) * steps
        else:
            number -= steps_before
        return int(max(min(number, steps), -1))


@dataclass(frozen=True, slots=True)
class Alternation:
    """`[a|b|c]`."""

    parts: tuple[Text, ...]


Text = tuple["str | Edit | Alternation", ...]
"""Some text of a prompt, whole or as it changes."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """A prompt that may say something else in each step."""

    text: Text

    @property
    def changes(self) -> bool:
        """Whether there is any editing or alternation."""
        return any(not isinstance(part, str) for part in self.text)

    def at(self, step: int, steps: int, steps_before: int = 0) -> str:
        """Return what it says in a step, from 1, of `steps`; see `Edit.last` for a pass after another."""
        said: list[str] = []
        left = [iter(self.text)]
        while left:
            part = next(left[-1], None)
            if part is None:
                left.pop()
            elif isinstance(part, str):
                said.append(part)
            elif isinstance(part, Edit):
                left.append(iter(part.before if step <= part.last(steps, steps_before) else part.after))
            else:
                left.append(iter(part.parts[(step - 1) % len(part.parts)]))
        return "".join(said)

    def texts(self, steps: int, steps_before: int = 0) -> list[tuple[int, str]]:
        """Return what it says in all steps: the last step that says a text, and the text."""
        said = [(step, self.at(step, steps, steps_before)) for step in range(1, steps + 1)]
        runs = [list(run) for _, run in groupby(said, key=lambda each: each[1])]
        return [run[-1] for run in runs]


def read_schedule(prompt: str) -> Schedule:
    """Read a prompt. Never raises; without editing its text is the prompt as it stands."""
    reader = _Reader()
    end = 0
    for mark in _MARK.finditer(prompt):
        reader.innermost.add(prompt[end : mark.start()])
        end = mark.end()
        if mark[0] in "[(":
            reader.open(mark[0])
        elif mark[0] in "])":
            reader.close("[" if mark[0] == "]" else "(", mark[0])
        elif mark[0] in ":|":
            reader.innermost.part(mark[0])
        else:
            reader.innermost.add(mark[0])
    reader.innermost.add(prompt[end:])
    while reader.innermost.bracket:
        reader.leave_open()
    return Schedule(_joined(reader.innermost.as_text()))


class _Group:
    """What stands since an opening bracket, and where colons and bars part it."""

    def __init__(self, bracket: str) -> None:
        self._bracket = bracket
        self._parts: list[list[str | Edit | Alternation]] = [[]]
        self._marks: list[str] = []

    @property
    def bracket(self) -> str:
        """What opened it; nothing for the whole prompt."""
        return self._bracket

    def add(self, text: str) -> None:
        if text:
            self._parts[-1].append(text)

    def part(self, mark: str) -> None:
        self._parts.append([])
        self._marks.append(mark)

    def take(self, parts: Sequence[str | Edit | Alternation]) -> None:
        """Take what another group turned out to be: its colons part nothing here."""
        self._parts[-1] += _joined(parts)  # or deep brackets would be copied one by one

    def as_text(self) -> list[str | Edit | Alternation]:
        """Return everything as it stands, the opening bracket included."""
        found: list[str | Edit | Alternation] = [self._bracket, *self._parts[0]]
        for mark, part in zip(self._marks, self._parts[1:], strict=True):
            found += [mark, *part]
        return found

    def meaning(self) -> list[str | Edit | Alternation]:
        """Return what it means once a square bracket closes it."""
        if "|" in self._marks:
            return [Alternation(tuple(map(_joined, self._alternatives())))]
        *texts, last = map(_joined, self._parts)
        said = last[0] if len(last) == 1 and isinstance(last[0], str) else ""
        when = _WHEN.fullmatch(said)
        if when is None or len(texts) not in (1, 2):
            return [*self.as_text(), "]"]
        before, after = texts if len(texts) == 2 else ((), texts[0])
        return [Edit(before, after, when[1])]

    def _alternatives(self) -> list[list[str | Edit | Alternation]]:
        """Return what bars part; colons are text there."""
        found = [list(self._parts[0])]
        for mark, part in zip(self._marks, self._parts[1:], strict=True):
            if mark == "|":
                found.append(list(part))
            else:
                found[-1] += [mark, *part]
        return found


class _Reader:
    """The brackets that are open, the whole prompt's group first."""

    def __init__(self) -> None:
        self._groups = [_Group("")]
        self._open = Counter[str]()

    @property
    def innermost(self) -> _Group:
        """What is read into."""
        return self._groups[-1]

    def open(self, bracket: str) -> None:
        self._open[bracket] += 1
        self._groups.append(_Group(bracket))

    def leave_open(self) -> None:
        """Let the innermost bracket be text."""
        group = self._pop()
        self.innermost.take(group.as_text())

    def close(self, opening: str, mark: str) -> None:
        """Close the innermost bracket of a kind; what stayed open in it is text, and so is one too many."""
        if not self._open[opening]:
            self.innermost.add(mark)
            return
        while self.innermost.bracket != opening:
            self.leave_open()
        group = self._pop()
        self.innermost.take(group.meaning() if mark == "]" else [*group.as_text(), mark])

    def _pop(self) -> _Group:
        group = self._groups.pop()
        self._open[group.bracket] -= 1
        return group


def _joined(parts: Sequence[str | Edit | Alternation]) -> Text:
    """Join neighbouring texts."""
    return tuple(_runs(parts))


def _runs(parts: Sequence[str | Edit | Alternation]) -> Iterator[str | Edit | Alternation]:
    for is_text, run in groupby(parts, key=lambda part: isinstance(part, str)):
        if is_text:
            yield "".join(part for part in run if isinstance(part, str))
        else:
            yield from run
