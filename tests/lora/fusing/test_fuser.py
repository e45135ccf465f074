"""How members are listed."""

from __future__ import annotations

from sdgrpc.lora.bases.module_names import NameIndex
from sdgrpc.lora.bases.placement import place
from sdgrpc.lora.fusing.fuser import Member, plan
from sdgrpc.lora.fusing.placed_file import PlacedFile
from tests.support.loras import LINEAR, TEXT_LINEAR, adapter_of, kohya_file, small_shapes


def prepared(*paths: str) -> PlacedFile:
    adapter = adapter_of(kohya_file(*paths))
    return PlacedFile.of(adapter, place(adapter, NameIndex(small_shapes())), {})


def test_a_plan_lists_members_in_order() -> None:
    """Per parameter, who adds how much; what has no strength is not there."""
    first, second = prepared(LINEAR, TEXT_LINEAR), prepared(LINEAR)
    listed = plan([Member(first, 0.5, 0.0), Member(second, 0.25, 1.0)])
    assert {key: [(c.placed_file, c.strength) for c in found] for key, found in listed.items()} == {
        ("unet", f"{LINEAR}.weight"): [(first, 0.5), (second, 0.25)]
    }
