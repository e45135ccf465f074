"""What is wrong with LoRAs once the model and the operator's range of strengths are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sdgrpc.api.loras.block_weights import block_faults
from sdgrpc.api.rules import Complaint
from sdgrpc.api.tables import lora_strength, unset_lora_strength
from sdgrpc.settings import Settings
from sdgrpc.v1 import diffusion_pb2 as pb


def default_strengths(loras: Sequence[pb.Lora], settings: Settings) -> Iterator[Complaint]:
    """An unset strength is 1, which the operator's range may not hold."""
    rule = unset_lora_strength(settings)
    for index, lora in enumerate(loras):
        for path, sentence in rule(lora):
            yield f"[{index}]{path}", sentence


def faults(loras: Sequence[pb.Lora], base: str, settings: Settings) -> list[Complaint]:
    """Return what is wrong for a model of that base; an empty one is not known, or the fields are wrong."""
    unset = list(default_strengths(loras, settings))
    return unset if unset or not base else list(misfits(loras, base, settings))


def misfits(loras: Sequence[pb.Lora], base: str, settings: Settings) -> Iterator[Complaint]:
    """Strengths by block are for the blocks of a model of that base."""
    strengths = lora_strength(settings)
    for index, lora in enumerate(loras):
        for path, sentence in block_faults(lora, base, strengths):
            yield f"[{index}]{path}", sentence
