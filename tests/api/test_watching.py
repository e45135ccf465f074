"""What is worth a report."""

from __future__ import annotations

import pytest

from sdgrpc.api.watching import interval_of, is_same
from sdgrpc.v1 import catalog_pb2 as pb


def status(**changes) -> pb.WatchStatusResponse:
    return pb.WatchStatusResponse(**{"running": 1, "steps_per_second": 10.0, **changes})


@pytest.mark.parametrize("change", [{"steps_per_second": 10.5}, {"rows_per_call": 0.0}, {}])
def test_noise_is_no_report(change: dict[str, float]) -> None:
    """Measured numbers differ a little from call to call."""
    assert is_same(status(), status(**change))


@pytest.mark.parametrize(
    "change", [{"steps_per_second": 20.0}, {"steps_per_second": 0.0}, {"running": 2}, {"jobs_finished": 1}]
)
def test_changes_are(change: dict[str, float]) -> None:
    """Counts by one, measured numbers by a good share, or to nothing."""
    assert not is_same(status(), status(**change))


def test_unset_is_a_second() -> None:
    """And zero is zero."""
    assert interval_of(pb.WatchStatusRequest()) == 1.0
    assert interval_of(pb.WatchStatusRequest(min_interval={"nanos": 500_000_000})) == 0.5
    assert interval_of(pb.WatchStatusRequest(min_interval={})) == 0.0
