"""Prompts that say something else as the steps go: how much they may say."""

from __future__ import annotations

from collections.abc import Iterator

from sdgrpc.api import codec
from sdgrpc.api.codec import Request
from sdgrpc.api.rules import Complaint
from sdgrpc.domain import ModelInfo
from sdgrpc.engine.prompts.texts import faults

COUNTS = {"width", "height", "sampling", "strength", "second_pass"}
"""The fields that decide which steps there are; a second pass has a size besides."""

LONG = 100
"""Brackets from which on it takes long to follow them through the steps: 4,000 characters up to 0.3 s."""


def changes_much(request: Request) -> bool:
    """Whether judging the request would hold up whoever waits for the same thread."""
    return (request.prompt + request.negative_prompt).count("[") > LONG


def changing_faults(request: Request, model: ModelInfo, prompt: str) -> Iterator[Complaint]:
    """Judge both prompts of a request, the first without its tags, by what each of its steps says.

    All fields in `COUNTS` must be right.
    """
    if "[" not in prompt + request.negative_prompt:
        return
    counted = {field.name: value for field, value in request.ListFields() if field.name in COUNTS}
    bare = type(request)(prompt=prompt, negative_prompt=request.negative_prompt, **counted)
    for fault in faults(codec.task(bare, model, None, None)):
        yield f".{fault.field}", fault.description
