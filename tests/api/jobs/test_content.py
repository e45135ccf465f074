"""When two requests ask for the same pictures."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from sdgrpc.api.jobs.content import Content
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support import requests
from tests.support.api import generate, transform


@settings(deadline=None, max_examples=50)
@given(request=requests.valid())
def test_what_names_a_job_is_no_content(request: Any) -> None:
    """The id, and what becomes of a cut call, draw nothing else."""
    before = Content.of(request)
    request.request_id, request.on_disconnect = "another", pb.ON_DISCONNECT_KEEP
    assert Content.of(request).is_same(before, None)
    request.prompt += " "
    assert not Content.of(request).is_same(before, None)


@pytest.mark.parametrize(
    ("new", "old", "drawn", "same"),
    [
        (None, None, 5, True),
        (5, None, 5, True),
        (6, None, 5, False),
        (5, None, None, False),
        (5, 5, 5, True),
        (0, None, 5, False),
        (None, 5, 5, False),
    ],
)
def test_seeds(new: int | None, old: int | None, drawn: int | None, same: bool) -> None:
    """A seed that was drawn may be given back; one that was given may not be left out."""
    first, second = (Content.of(generate(sampling=pb.Sampling(steps=3, seed=seed))) for seed in (old, new))
    assert second.is_same(first, drawn) is same


def test_neighbouring_fields_do_not_run_together() -> None:
    """What one LoRA or prompt lacks the next has not more of."""
    pairs = [
        ({"prompt": "ab", "negative_prompt": "c"}, {"prompt": "a", "negative_prompt": "bc"}),
        (
            {"loras": [pb.Lora(name="a"), pb.Lora(name="b")]},
            {"loras": [pb.Lora(name="b"), pb.Lora(name="a")]},
        ),
    ]
    for first, second in pairs:
        assert not Content.of(generate(**first)).is_same(Content.of(generate(**second)), None)


def test_the_picture_counts() -> None:
    """Another byte of it is other content."""
    first, second = transform(), transform()
    second.image.data += b"\0"
    assert Content.of(transform()).is_same(Content.of(first), None)
    assert not Content.of(second).is_same(Content.of(first), None)
