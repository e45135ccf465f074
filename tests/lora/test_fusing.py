"""How weights are cut and members listed."""

from __future__ import annotations

import pytest
import torch

from sdgrpc.lora import fusing
from sdgrpc.lora.fusing import Member, Prepared, pieces, plan
from sdgrpc.lora.names import NameIndex
from sdgrpc.lora.placement import place
from tests.support.loras import LINEAR, TEXT_LINEAR, adapter_of, kohya_file, small_shapes


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 3), (1000, 1000), (3, 1 << 19)])
def test_pieces_cover_every_row_once(rows: int, columns: int) -> None:
    """On the CPU each piece fits the cache, unless one row alone does not."""
    cut = pieces(torch.empty(rows, columns))
    assert [row for piece in cut for row in range(piece.start, piece.stop)] == list(range(rows))
    assert all((piece.stop - piece.start) * columns <= max(fusing.PIECE, columns) for piece in cut)


def test_other_devices_take_a_matrix_whole() -> None:
    """A kernel call costs more there than the cache saves."""
    assert pieces(torch.empty(10_000, 10_000, device="meta")) == [slice(0, 10_000)]


def prepared(*paths: str) -> Prepared:
    adapter = adapter_of(kohya_file(*paths))
    return Prepared.of(adapter, place(adapter, NameIndex(small_shapes())), {})


def test_a_plan_lists_members_in_order() -> None:
    """Per parameter, who adds how much; what has no strength is not there."""
    first, second = prepared(LINEAR, TEXT_LINEAR), prepared(LINEAR)
    listed = plan([Member(first, 0.5, 0.0), Member(second, 0.25, 1.0)])
    assert {key: [(c.prepared, c.strength) for c in found] for key, found in listed.items()} == {
        ("unet", f"{LINEAR}.weight"): [(first, 0.5), (second, 0.25)]
    }
