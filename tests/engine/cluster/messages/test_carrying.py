"""Failures that cross processes."""

from __future__ import annotations

import pickle

import pytest

from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.errors import (
    FieldViolation,
    InvalidRequest,
    LoraMalformed,
    LoraNotFound,
    QueueFull,
    SdgrpcError,
    Unexpected,
)

FAILURES = [
    QueueFull("full", retry_after=2.0),
    LoraNotFound("sepia", "no such file"),
    LoraMalformed("sepia", "a NaN", key="lora_unet.weight"),
    InvalidRequest([FieldViolation("sampling.steps", "is 0")]),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda one: type(one).__name__)
def test_a_failure_arrives_as_it_was(failure: SdgrpcError) -> None:
    """With its class, its words and every field, through a pickle."""
    arrived = pickle.loads(pickle.dumps(Carried.of(failure))).error()  # noqa: S301
    assert type(arrived) is type(failure)
    assert str(arrived) == str(failure)
    assert vars(arrived) == vars(failure)


def test_what_has_no_name_says_nothing_of_itself(caplog: pytest.LogCaptureFixture) -> None:
    """The log has the cause under the id that the caller is told."""
    arrived = Carried.of(ValueError("/secret/path")).error()
    assert isinstance(arrived, Unexpected)
    assert "secret" not in str(arrived)
    assert arrived.error_id in caplog.text
    assert "/secret/path" in caplog.text
