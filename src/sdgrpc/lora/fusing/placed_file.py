"""A file that has its place in a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from sdgrpc.domain import RecommendedSampling
from sdgrpc.lora.bases.placement import Placement
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.tokens import NO_TOKENS, Vocabulary
from sdgrpc.lora.headers.made_for import made_for

Parameter = tuple[str, str]
"""A component and the name of one of its parameters."""


@dataclass(eq=False)
class PlacedFile:
    """A file that has its place in the model, and the norms of its changes at strength 1, as far as known.

    It does not hold the adapter: it is kept as long as somebody else keeps that. `warned` are the warnings of
    a report with how many norms were known when they were made.
    """

    placement: Placement
    unmatched: tuple[str, ...]
    vocabulary: Vocabulary = NO_TOKENS
    autov3: str = ""
    recommended: RecommendedSampling | None = None
    norms: dict[Parameter, float] = field(default_factory=dict)
    warned: tuple[int, tuple[str, ...]] = (-1, ())

    @classmethod
    def of(cls, adapter: Adapter, placement: Placement, widths: Mapping[str, int]) -> PlacedFile:
        """Keep of an adapter what reports and prompts need; `widths` are the model's token embeddings'."""
        vocabulary = Vocabulary.of(adapter.tokens, widths)
        unmatched = (*placement.unmatched(adapter), *vocabulary.unmatched)
        return cls(placement, unmatched, vocabulary, adapter.autov3, _recommended(adapter, placement))


def _recommended(adapter: Adapter, placement: Placement) -> RecommendedSampling | None:
    paths = [f"{one.target.component}.{one.target.path}" for one in placement.placed]
    return made_for(adapter.name, adapter.metadata, paths, [one.source.rank for one in placement.placed])
