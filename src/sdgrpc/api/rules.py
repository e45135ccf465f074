"""Small rules that judge one value each and combine: a message's rules are a table of its fields.

A rule takes a value and yields its complaints, each with the path below the value (`""` for the value itself,
`.strength`, `[1].strength`) and a sentence. Sentences never repeat text of the client but for short names.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.message import Message

from sdgrpc.domain.decimals import shortest

Complaint = tuple[str, str]
Rule = Callable[[Any], Iterator[Complaint]]


def anything(_value: object) -> Iterator[Complaint]:
    """No value is wrong."""
    yield from ()


def number(low: float, high: float, *, hint: str = "") -> Rule:
    """A finite number in [low, high]."""

    def rule(value: float) -> Iterator[Complaint]:
        shown = shortest(value)
        if not math.isfinite(value):
            yield "", f"{value} is not a finite number"
        elif shown < low:
            yield "", f"{shown} is below {low}{hint}"
        elif shown > high:
            yield "", f"{shown} is above {high}{hint}"

    return rule


def zero_or(rule: Rule) -> Rule:
    """0, which stands for a default, or what `rule` accepts."""

    def with_zero(value: float) -> Iterator[Complaint]:
        if value != 0:
            yield from rule(value)

    return with_zero


def multiple_of(unit: int) -> Rule:
    """A multiple of `unit`."""

    def rule(value: int) -> Iterator[Complaint]:
        if value % unit:
            lower = value - value % unit
            yield "", f"{value} is not a multiple of {unit}; {lower} and {lower + unit} are"

    return rule


def text(max_chars: int, *, needed: bool = False) -> Rule:
    """A text of at most so many characters, and of more than white space if it is needed."""

    def rule(value: str) -> Iterator[Complaint]:
        if needed and not value.strip():
            yield "", "is required and is empty"
        elif len(value) > max_chars:
            yield "", f"has {len(value)} characters; the most is {max_chars}"

    return rule


def name(max_chars: int, *, needed: bool = False) -> Rule:
    """A short text that can stand in a line of a log."""

    def printable(value: str) -> Iterator[Complaint]:
        if not value.isprintable():
            yield "", "has characters that cannot be printed"

    return first(text(max_chars, needed=needed), printable)


def matching(pattern: str, sentence: str) -> Rule:
    """A text that matches the whole pattern; else the sentence is the complaint."""
    expression = re.compile(pattern)

    def rule(value: str) -> Iterator[Complaint]:
        if not expression.fullmatch(value):
            yield "", sentence

    return rule


def one_of(choices: Collection[str]) -> Rule:
    """Empty, which stands for the default, or one of the choices."""

    def rule(value: str) -> Iterator[Complaint]:
        if value and value not in choices:
            yield "", f"is none of {', '.join(choices)}"

    return rule


def member(enum: EnumDescriptor) -> Rule:
    """A number that the enum knows."""
    highest = max(enum.values_by_number)

    def rule(value: int) -> Iterator[Complaint]:
        if value not in enum.values_by_number:
            yield "", f"{value} is not a {enum.name}; they go from 0 to {highest}"

    return rule


def refused(sentence: str) -> Rule:
    """Nothing may be set here."""

    def rule(_value: object) -> Iterator[Complaint]:
        yield "", sentence

    return rule


def first(*rules: Rule) -> Rule:
    """All of the rules; only the first that complains is heard."""

    def rule(value: object) -> Iterator[Complaint]:
        yield from next(filter(None, (list(each(value)) for each in rules)), [])

    return rule


def every(*rules: Rule) -> Rule:
    """All of the rules, and all of their complaints."""

    def rule(value: object) -> Iterator[Complaint]:
        for each in rules:
            yield from each(value)

    return rule


def items(rule: Rule, *, at_most: int) -> Rule:
    """A list of limited length whose items follow the rule; a list too long is judged by its length alone."""

    def judge(values: Collection[object]) -> Iterator[Complaint]:
        if len(values) > at_most:
            yield "", f"has {len(values)} entries; the most is {at_most}"
            return
        for index, value in enumerate(values):
            for path, sentence in rule(value):
                yield f"[{index}]{path}", sentence

    return judge


def fields(rules: Mapping[str, Rule], *, needed: Collection[str] = ()) -> Rule:
    """A message by its fields. One with presence is judged only if it is set, and must be if it is needed."""

    def rule(message: Message) -> Iterator[Complaint]:
        for field, judge in rules.items():
            absent = message.DESCRIPTOR.fields_by_name[field].has_presence and not message.HasField(field)
            if absent and field in needed:
                yield f".{field}", "is required and is not set"
            elif not absent:
                for path, sentence in judge(getattr(message, field)):
                    yield f".{field}{path}", sentence

    return rule


def exactly_one(oneof: str) -> Rule:
    """A message in which one field of the oneof is set; protobuf sees to it that no more are."""

    def rule(message: Message) -> Iterator[Complaint]:
        if message.WhichOneof(oneof) is None:
            choices = [field.name for field in message.DESCRIPTOR.oneofs_by_name[oneof].fields]
            yield "", f"set one of {', '.join(choices)}"

    return rule


_Default = TypeVar("_Default", float, float | None)


def given(message: Message, field: str, default: _Default) -> float | _Default:
    """A float that has presence, as the client wrote it; the default where it is not set or no field."""
    known = field in message.DESCRIPTOR.fields_by_name
    return shortest(getattr(message, field)) if known and message.HasField(field) else default
