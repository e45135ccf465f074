"""What a replica says of itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sdgrpc.domain import EngineStatus, ResidentSet
from sdgrpc.engine.cluster.replica import Report

SET = ResidentSet(set_id="a", model="m", size_bytes=40, in_use=False, loras=())
EMPTY = EngineStatus(True, 0, 0, 0.0, 0.0, 0, 0, 0, 0, lora_set_budget_bytes=100)


@pytest.mark.parametrize(("held", "full"), [(60, False), (61, True), (100, True)])
def test_it_is_full_once_a_set_as_large_as_its_largest_has_no_room(held: int, full: bool) -> None:
    """Within its budget of 100 bytes."""
    status = replace(EMPTY, lora_set_bytes=held, resident_sets=(replace(SET, size_bytes=10), SET))
    assert Report("", 1, status, ()).is_full is full


def test_one_without_sets_has_room() -> None:
    """Also before it fused any."""
    assert not Report("", 1, EMPTY, ()).is_full
