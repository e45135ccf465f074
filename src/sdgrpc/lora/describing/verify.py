"""Would every LoRA file of a folder be applied, and how much does each change? A row per file."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sdgrpc.domain.bases import UNKNOWN
from sdgrpc.errors import LoraError, LoraIncompatible
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.detect import base_of, no_base, place_or_refuse
from sdgrpc.lora.bases.module_names import TEXT_ENCODER, TEXT_ENCODER_2, UNET
from sdgrpc.lora.bases.placement import Placed, Placement
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.dialects.adapt import read_adapter, sketch_adapter
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.tokens import Vocabulary
from sdgrpc.lora.files import reading
from sdgrpc.lora.fusing.changes import change_norm, weight_change
from sdgrpc.lora.fusing.placed_file import Parameter
from sdgrpc.lora.fusing.reports import warnings
from sdgrpc.lora.store.folders import FolderIndex


@dataclass(frozen=True, slots=True)
class Row:
    """One file. `norm` is that of its changes at strength 1, `relative_norm` its ratio to the weights' norm.

    Without a model `relative_norm` is None, and so is `norm` where a module's change depends on the weight.
    `refusal` is empty where the file would be applied, `warnings` is what a job's report would say about it.
    """

    file: str
    base: str = UNKNOWN
    algorithms: tuple[str, ...] = ()
    modules: int = 0
    unmatched: int = 0
    norm: float | None = None
    relative_norm: float | None = None
    refusal: str = ""
    warnings: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Judge:
    """A model with its weights, so that changes can be told in proportion to them."""

    model: Target
    weights: Mapping[tuple[str, str], Tensor]

    @classmethod
    def of_folder(cls, folder: Path) -> Judge:
        """Read a model in diffusers' layout.

        Raises:
            ModelError, LoraError: as `Target.of_folder` does.

        """
        weights = {
            (component, key): tensor
            for component in (UNET, TEXT_ENCODER, TEXT_ENCODER_2)
            for file in sorted((folder / component).glob("*.safetensors"))
            for key, tensor in reading.read(file.resolve(), file.name).tensors.items()
        }
        return cls(Target.of_folder(folder), weights)


def verify(folder: Path, judge: Judge | None = None, *, follow_links: bool = False) -> Iterator[Row]:
    """Judge every LoRA file below a folder, pickles too, in the order of their names; then links left out.

    Args:
        folder: searched with its sub-folders.
        judge: the model that files are judged against; None judges each against the base it is for.
        follow_links: whether links count that lead out of the folder; if not, each is a row that says so.

    """
    root, found = folder.resolve(), FolderIndex([folder], follow_links=follow_links)
    for file in found.files():
        shown = file.path if file.path.is_relative_to(root) else file.seen
        relative = shown.relative_to(root).as_posix()
        try:
            yield _row(file.path, relative, found.config_of(file.path), judge)
        except LoraError as error:
            yield Row(relative, refusal=error.message)
        except OSError as error:
            yield Row(relative, refusal=f"cannot be read: {error.strerror}")
    for name, reason in found.left_out():
        yield Row(name, refusal=f"left out: it {reason}")


def _row(path: Path, name: str, config: str, judge: Judge | None) -> Row:
    """Judge a file by its header; only one that would be applied is read further."""
    sketch = sketch_adapter(path, name, config=config)
    if sketch.adapter is None:
        return Row(name, refusal=sketch.refusal.message if sketch.refusal else "")
    found = base_of(sketch.adapter)
    base = found[0] if found else UNKNOWN
    algorithms = tuple(sorted({module.label for module in sketch.adapter.modules}))
    try:
        _placement(sketch.adapter, base, judge)
        adapter = read_adapter(path, name, config=config)
        placement = _placement(adapter, base, judge)
    except LoraError as error:
        return Row(name, base, algorithms, refusal=error.message)
    norms = {_weight_of(placed): _norm(placed, judge) for placed in placement.placed}
    norm, relative = _total(placement, norms, judge)
    names = judge.model.names if judge else index(base)
    vocabulary = Vocabulary.of(adapter.tokens, names.token_widths)
    return Row(
        file=name,
        base=base,
        algorithms=algorithms,
        modules=len(placement.placed),
        unmatched=len(placement.unmatched(adapter)),
        norm=norm,
        relative_norm=relative,
        warnings=tuple(warnings(placement, norms, vocabulary)),
    )


def _placement(adapter: Adapter, base: str, judge: Judge | None) -> Placement:
    """Place a file where it is judged, as the service would.

    Raises:
        LoraError: it would be refused.

    """
    if judge is not None:
        return place_or_refuse(adapter, judge.model.names, judge.model.base)
    if base == UNKNOWN:
        raise LoraIncompatible(adapter.name, no_base(adapter))
    return place_or_refuse(adapter, index(base), base)


def _weight_of(placed: Placed) -> Parameter:
    return placed.target.component, f"{placed.target.path}.weight"


def _norm(placed: Placed, judge: Judge | None) -> float | None:
    """Return the norm of a module's change at strength 1; None where the weight that decides is not here."""
    norm = change_norm(placed.source, placed.target.weight, torch.float64)
    weight = judge.weights.get(_weight_of(placed)) if judge else None
    if norm is not None or weight is None:
        return norm
    flat = weight.double().reshape(weight.shape[0], -1)
    return float(weight_change(placed.source, flat, tuple(weight.shape), torch.float64).norm())


def _total(
    placement: Placement, norms: Mapping[Parameter, float | None], judge: Judge | None
) -> tuple[float | None, float | None]:
    """Return the norm of all changes together, and its ratio to that of the weights that they change."""
    known = [norm for norm in norms.values() if norm is not None]
    if len(known) < len(norms) or not known:
        return None, None
    weights = [judge.weights.get(_weight_of(placed)) for placed in placement.placed] if judge else []
    length = math.hypot(*(float(weight.double().norm()) for weight in weights if weight is not None))
    total = math.hypot(*known)
    return total, total / length if length else None
