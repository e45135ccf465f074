"""What is inside a LoRA file, without any model: base, algorithms, modules and how much each changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from sdgrpc.domain import LoraModuleInfo
from sdgrpc.domain.bases import UNKNOWN
from sdgrpc.errors import LoraError, LoraMalformed
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.detect import check
from sdgrpc.lora.bases.placement import Placed, place
from sdgrpc.lora.describing.metadata import joined_words
from sdgrpc.lora.describing.summary import summary_of
from sdgrpc.lora.dialects.adapt import read_adapter, read_config, sketch_adapter
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.tokens import Vocabulary
from sdgrpc.lora.fusing.changes import change_norm
from sdgrpc.lora.fusing.reports import warnings
from sdgrpc.lora.store.beside import BesideFiles


@dataclass(frozen=True, slots=True)
class Inspection:
    """A file and what is in it.

    Attributes:
        file: its path, as it was named.
        sha256: of its content; empty where its header alone refused it, since no data was read then.
        base: `sd15`, `sd2`, `sdxl`, `embedded` or `unknown`.
        algorithms: of all its modules, by name.
        tensors: how many it holds.
        unmatched: keys that find no place in the base.
        refusal: why it would not be applied; empty if it would.
        metadata: what trainers wrote, without pictures.
        modules: what it changes, with the norm of each change at strength 1, None where that depends on the
            weight; none where it is refused.
        warnings: what a job's report would say about it, and what beside it was ignored.
        trigger_words: words to use it with; like the next ones as the catalog tells them.
        picture: where a picture lies beside it; empty where none does.

    """

    file: str
    sha256: str = ""
    base: str = UNKNOWN
    algorithms: tuple[str, ...] = ()
    tensors: int = 0
    unmatched: tuple[str, ...] = ()
    refusal: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    modules: tuple[LoraModuleInfo, ...] = ()
    warnings: tuple[str, ...] = ()
    trigger_words: tuple[str, ...] = ()
    preferred_strength: float | None = None
    air: str = ""
    base_model: str = ""
    picture: str = ""


def inspect(path: Path | str) -> Inspection:
    """Describe a file; one that its header refuses is read no further.

    Raises:
        OSError: the file cannot be opened, or is no regular file.

    """
    named, path = str(path), Path(path).resolve()  # the reader follows no links
    config = read_config(path)
    summary = summary_of(sketch_adapter(path, path.name, config=config), path.stat().st_size)
    refusal, sha256, beside = summary.refusal, "", BesideFiles().of(path)
    modules: tuple[LoraModuleInfo, ...] = ()
    said: tuple[str, ...] = ()
    if not refusal:
        try:
            adapter = read_adapter(path, path.name, config=config)
            sha256 = adapter.sha256
            modules = describe_modules(adapter, summary.base)
            said = tuple(_warnings(adapter, summary.base, modules))
        except LoraError as error:
            refusal = error.message
    return Inspection(
        file=named,
        sha256=sha256,
        base=summary.base,
        algorithms=summary.algorithms,
        tensors=summary.tensors,
        unmatched=summary.unmatched,
        refusal=refusal,
        metadata=summary.metadata,
        modules=modules,
        warnings=(*said, *beside.warnings),
        trigger_words=joined_words(beside, summary.trigger_words),
        preferred_strength=beside.preferred_strength,
        air=beside.air,
        base_model=beside.base_model,
        picture=str(beside.picture or ""),
    )


def _warnings(adapter: Adapter, base: str, modules: Sequence[LoraModuleInfo]) -> list[str]:
    """Return what a job on a model of that base would be told about a file."""
    norms = {(module.component, f"{module.path}.weight"): module.delta_norm for module in modules}
    vocabulary = Vocabulary.of(adapter.tokens, index(base).token_widths)
    return warnings(place(adapter, index(base)), norms, vocabulary)


def describe_modules(adapter: Adapter, base: str) -> tuple[LoraModuleInfo, ...]:
    """Tell what each module of a file changes in a base, with the norm of the change at strength 1.

    Raises:
        LoraMalformed: a module of the base has another shape, or a change is too large for a number.

    """
    placement = place(adapter, index(base))
    check(adapter, placement, index(base))
    modules = tuple(_describe_module(placed) for placed in placement.placed)
    if any((module.delta_norm or 0.0) > torch.finfo(torch.float32).max for module in modules):
        raise LoraMalformed(adapter.name, "a change is too large for a number: alpha or a factor is wrong")
    return modules


def _describe_module(placed: Placed) -> LoraModuleInfo:
    source, target = placed.source, placed.target
    return LoraModuleInfo(
        component=target.component,
        path=target.path,
        algorithm=source.label,
        rank=source.rank,
        alpha=source.alpha,
        delta_norm=change_norm(source, target.weight, torch.float64),
    )
