"""No field of the contract's requests can be overlooked."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor

from sdgrpc.api import tables
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


def table_of(name: str) -> tables.Table:
    settings = make_settings()
    return {
        **{kind.DESCRIPTOR.name: tables.request_table(kind, settings) for kind in REQUESTS},
        "Lora": tables.lora_table(settings),
        "BlockWeights": BLOCK_TABLE,
        "SecondPass": second_pass_table(settings),
        "Sampling": tables.sampling_table(settings),
        "Output": tables.output_table(settings),
        "PreviewOptions": tables.preview_table(settings),
        "MaskOptions": tables.mask_table(settings),
        "Margins": tables.margins_table(settings),
        "Image": tables.IMAGE_TABLE,
        "GuidanceInterval": tables.INTERVAL_TABLE,
        "StepReuse": tables.REUSE_TABLE,
        "Variation": tables.VARIATION_TABLE,
        "Tiling": tables.TILING_TABLE,
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
