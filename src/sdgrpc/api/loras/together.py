"""What is wrong with LoRAs once the model and the operator's range of strengths are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdgrpc.api.codec import Request
from sdgrpc.api.field_rules import lora_strength, unset_lora_strength
from sdgrpc.api.loras.block_weights import block_faults
from sdgrpc.api.loras.grids import grid_faults, variants
from sdgrpc.api.rules import Complaint
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb


def default_strengths(loras: Sequence[pb.Lora], settings: Settings) -> Iterator[Complaint]:
    """An unset strength is 1, which the operator's range may not hold."""
    rule = unset_lora_strength(settings)
    for index, lora in enumerate(loras):
        for path, sentence in rule(lora):
            yield f"[{index}]{path}", sentence


def faults(request: Request, base: str, settings: Settings) -> list[Complaint]:
    """Return what is wrong for a model of that base; an empty one is not known, or the fields are wrong."""
    found = [*default_strengths(request.loras, settings), *grid_faults(request.loras, request.sampling)]
    return found if found or not base else list(misfits(request.loras, base, settings))


def misfits(loras: Sequence[pb.Lora], base: str, settings: Settings) -> Iterator[Complaint]:
    """Strengths by block are for the blocks of a model of that base."""
    strengths = lora_strength(settings)
    for index, lora in enumerate(loras):
        found = {path: said for one in variants(lora) for path, said in block_faults(one, base, strengths)}
        for path, sentence in found.items():
            yield f"[{index}]{path}", sentence
