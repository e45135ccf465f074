"""What a LoRA file is, in a few lines and a few milliseconds: from its header alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.domain import RecommendedSampling
from sdgrpc.domain.bases import UNKNOWN
from sdgrpc.errors import LoraError, LoraIncompatible
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.detect import base_of, check, no_base, place_or_refuse
from sdgrpc.lora.bases.placement import Placement
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing.metadata import trigger_words, without_pictures
from sdgrpc.lora.dialects.adapt import Sketch, sketch_adapter
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, ReadLimits
from sdgrpc.lora.headers.made_for import made_for


@dataclass(frozen=True, slots=True)
class LoraSummary:
    """What a file is. `size` in bytes; ranks are 0 where no module has one.

    `base` is `sd15`, `sd2`, `sdxl`, `embedded` or `unknown`. `refusal` says why the file cannot be used with
    the model it was judged against; without one, with any. `metadata` comes without pictures; `unmatched` are
    the keys that find no place in the base.
    """

    name: str
    sha256: str
    size: int
    base: str = UNKNOWN
    algorithms: tuple[str, ...] = ()
    rank_min: int = 0
    rank_max: int = 0
    trigger_words: tuple[str, ...] = ()
    tensors: int = 0
    modules: int = 0
    unmatched: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    refusal: str = ""
    recommended: RecommendedSampling | None = None

    @property
    def fits(self) -> bool:
        """Whether the file can be used with the model it was judged against."""
        return not self.refusal


def summarize(
    path: Path,
    name: str,
    *,
    sha256: str = "",
    model: Target | None = None,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> LoraSummary:
    """Summarise a file by its header, which is opened once: no data is read, and nothing is hashed.

    Args:
        path: where it is.
        name: what to call it.
        sha256: its hash, where it is known; it is only passed on.
        model: what to judge it against; None asks only whether it fits any known base.
        limits: what the file may claim at most.

    Raises:
        OSError: the file cannot be opened. What is wrong inside is said by `refusal`.

    """
    return summary_of(sketch_adapter(path, name, limits), path.stat().st_size, sha256=sha256, model=model)


def summary_of(sketch: Sketch, size: int, *, sha256: str = "", model: Target | None = None) -> LoraSummary:
    """Summarise what a header said of a file of `size` bytes; see `summarize`."""
    known, adapter = without_pictures(sketch.metadata), sketch.adapter
    if adapter is None:
        refusal = sketch.refusal.message if sketch.refusal else ""
        return LoraSummary(
            sketch.name, sha256, size, tensors=sketch.tensor_count, metadata=known, refusal=refusal
        )
    ranks = [module.rank for module in adapter.modules if module.rank is not None]
    found = base_of(adapter)
    return LoraSummary(
        name=sketch.name,
        sha256=sha256,
        size=size,
        base=found[0] if found else UNKNOWN,
        algorithms=tuple(sorted({module.label for module in adapter.modules})),
        rank_min=min(ranks, default=0),
        rank_max=max(ranks, default=0),
        trigger_words=trigger_words(sketch.metadata),
        tensors=sketch.tensor_count,
        modules=len(adapter.modules),
        unmatched=tuple(found[1].unmatched(adapter)) if found else (),
        metadata=known,
        refusal=_refusal(adapter, model, found),
        recommended=_recommended(sketch, adapter, found),
    )


def _recommended(
    sketch: Sketch, adapter: Adapter, found: tuple[str, Placement] | None
) -> RecommendedSampling | None:
    placed = found[1].placed if found else ()
    paths = [f"{one.target.component}.{one.target.path}" for one in placed]
    ranks = [module.rank for module in adapter.modules]
    return made_for(sketch.name, sketch.metadata, paths, ranks)


def _refusal(adapter: Adapter, model: Target | None, found: tuple[str, Placement] | None) -> str:
    """Return why a sound file cannot be used; nothing if it can."""
    try:
        if model is not None:
            place_or_refuse(adapter, model.names, model.base)
        elif found is None:
            raise LoraIncompatible(adapter.name, no_base(adapter))
        else:
            check(adapter, found[1], index(found[0]))
    except LoraError as error:
        return error.message
    return ""
