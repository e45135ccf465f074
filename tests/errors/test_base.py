"""Failures on their way from one process to another."""

from __future__ import annotations

import pickle

import pytest

from sdgrpc.errors import (
    FieldViolation,
    InvalidRequest,
    JobNotFound,
    LoraMalformed,
    QueueFull,
    SdgrpcError,
    Unexpected,
)


@pytest.mark.parametrize(
    "error",
    [
        QueueFull("full", retry_after=2.0),
        InvalidRequest([FieldViolation("width", "is 3")]),
        JobNotFound("mine", "no job"),
        LoraMalformed("inks", "has NaN", key="a.b"),
        Unexpected("abc"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_failure_is_the_same_in_another_process(error: SdgrpcError) -> None:
    """Class, message and content; not what it was raised from."""
    error.__cause__ = ValueError("a secret")
    written = pickle.dumps(error)
    assert b"secret" not in written
    again = pickle.loads(written)  # noqa: S301
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
