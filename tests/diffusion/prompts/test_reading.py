"""What is wrong with a prompt, said before any text encoder runs."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.prompts.conditioning import encode
from sdgrpc.diffusion.prompts.reading import PLAIN, PromptContext, fingerprint, read
from sdgrpc.errors import InvalidRequest

HEAVY = r"weighs words with {}; the most is 10. Write \( and \) for brackets that are text"


def faults(model: Model, prompt: str, context: PromptContext = PLAIN) -> list[str]:
    """What is said about a prompt."""
    return [*read(model, prompt, context).faults]


@pytest.mark.parametrize("prompt", ["", "a (red:10) cat", "(red:-10)", "(" * 24 + "red", "BREAK cat " * 31])
def test_what_is_allowed(model: Model, prompt: str) -> None:
    """Up to ten times either way, and 32 chunks."""
    assert faults(model, prompt) == []


@pytest.mark.parametrize(
    ("prompt", "weight"),
    [
        ("a castle (built in: 1648)", "1648"),
        ("(red:-11)", "-11"),
        ("(" * 25 + "red", "10.83"),
        (f"(red:{'9' * 400})", "inf"),
        (f"((red:{'9' * 400}):0)", "nan"),
    ],
)
def test_weights_beyond_reason(model: Model, prompt: str, weight: str) -> None:
    """They are most likely text; the message says how to write that, and none of the prompt's words."""
    assert faults(model, prompt) == [HEAVY.format(weight)]


def test_too_many_chunks(model: Model) -> None:
    """By length or by BREAKs: the cost is the same."""
    expected = ["takes 33 chunks of 75 tokens; the most is 32. Each BREAK begins another"]
    assert faults(model, "BREAK cat " * 32) == expected
    assert faults(model, "cat " * (32 * 75 + 1)) == expected


def test_a_disputed_token(model: Model) -> None:
    """It is an error only where it is used."""
    context = PromptContext(disputed=frozenset({"pet", "<s1>"}))
    assert faults(model, "a carpet", context) == []
    said = "uses the token {!r}, which two LoRAs give different vectors; leave one of them out"
    assert faults(model, "a PET like <s1>", context) == [said.format("<s1>"), said.format("pet")]


def test_every_violation_is_collected(model: Model) -> None:
    """Of both prompts and of clip skip, each with its field."""
    with pytest.raises(InvalidRequest) as caught:
        encode(model, "(red:11)", "(blue:12)", 3)
    fields = [violation.field for violation in caught.value.violations]
    assert fields == ["prompt", "negative_prompt", "sampling.clip_skip"]


def test_the_hash_of_learned_vectors() -> None:
    """Equal vectors have one; other numbers, encoders or shapes have another."""
    rows = torch.arange(8.0).view(2, 4)
    others = [
        {"a": rows + 1},
        {"b": rows},
        {"a": rows.view(4, 2)},
        {"a": rows.half()},
        {"a": rows, "b": rows},
    ]
    assert fingerprint({"a": rows}) == fingerprint({"a": rows.clone()})
    assert len({fingerprint(each) for each in [{"a": rows}, *others]}) == 6
