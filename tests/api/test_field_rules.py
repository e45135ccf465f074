"""No field of the contract's requests can be overlooked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor

from sdgrpc.api import field_rules
from sdgrpc.api.loras.block_weights import BLOCK_TABLE
from sdgrpc.api.sampling.second_pass import second_pass_table
from sdgrpc.v1 import diffusion_pb2 as pb
from tests.support.api import make_settings

REQUESTS = (pb.GenerateRequest, pb.TransformRequest, pb.InpaintRequest)


def reachable(message: Descriptor) -> Iterator[Descriptor]:
    """The message's type and those of everything in it."""
    yield message
    for field in message.fields:
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            yield from reachable(field.message_type)


def table_of(name: str) -> field_rules.Table:
    settings = make_settings()
    return {
        **{kind.DESCRIPTOR.name: field_rules.request_table(kind, settings) for kind in REQUESTS},
        "Lora": field_rules.lora_table(settings),
        "BlockWeights": BLOCK_TABLE,
        "SecondPass": second_pass_table(settings),
        "Sampling": field_rules.sampling_table(settings),
        "Output": field_rules.output_table(settings),
        "PreviewOptions": field_rules.preview_table(settings),
        "MaskOptions": field_rules.mask_table(settings),
        "Margins": field_rules.margins_table(settings),
        "Image": field_rules.IMAGE_TABLE,
        "GuidanceInterval": field_rules.INTERVAL_TABLE,
        "StepReuse": field_rules.REUSE_TABLE,
        "Variation": field_rules.VARIATION_TABLE,
        "Tiling": field_rules.TILING_TABLE,
    }[name]


@pytest.mark.parametrize("request_type", REQUESTS)
def test_every_field_has_a_rule(request_type: type) -> None:
    """A field that the contract gains fails here until somebody decides what it may hold."""
    for message in reachable(request_type.DESCRIPTOR):  # type: ignore[attr-defined]
        assert set(table_of(message.name)) == {field.name for field in message.fields}, message.name


def test_common_fields_mean_the_same() -> None:
    """Fields 1 to 7 have the same names and types in all three requests, as the contract says."""
    for number in range(1, 8):
        found = {
            (kind.DESCRIPTOR.fields_by_number[number].name, kind.DESCRIPTOR.fields_by_number[number].type)
            for kind in REQUESTS
        }
        assert len(found) == 1, number
