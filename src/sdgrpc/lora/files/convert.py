"""Makes safetensors of the pickles that LoRAs were shared as: `.pt`, `.bin`, `.ckpt`.

A pickle is a program. It is read by torch's weights-only loader, which builds tensors and plain containers
and runs nothing else; a file that asks for more is refused. What comes out is checked as any other file is.
"""

from __future__ import annotations

import io
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from sdgrpc.errors import LoraError, LoraMalformed, LoraUnsupported
from sdgrpc.lora.files import reading
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, ReadLimits
from sdgrpc.regular_files import open_regular
from sdgrpc.tensor_files.header import DTYPES
from sdgrpc.tensor_files.pickles import PICKLE_STARTS

SUFFIX = ".safetensors"
METADATA = {"format": "pt"}

WRAPPERS = ("state_dict",)
"""Names under which trainers' checkpoints keep the tensors, beside epochs and the like."""

NUMBERS = (".alpha", ".scale")
"""Endings of keys whose plain number is a tensor in safetensors."""

_GLOBAL = re.compile(r"GLOBAL (\S+)")


def convert(
    source: Path,
    target: Path | None = None,
    *,
    overwrite: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> Path:
    """Write a pickle's tensors as a safetensors file, and return where it is.

    Args:
        source: a flat map of tensors, one inside `state_dict`, or cloneofsimo's list of factors.
        target: what to write; by default beside the source, with the ending `.safetensors`.
        overwrite: whether a file that is there may be replaced.
        limits: what the source may hold at most.

    Raises:
        LoraUnsupported: the pickle holds code, or no LoRA; nothing of it was run.
        LoraMalformed: it is truncated, or a tensor cannot be written; names the key.
        FileExistsError: the target is there.
        OSError: a file cannot be read or written.

    """
    target = source.with_suffix(SUFFIX) if target is None else target
    if target.suffix != SUFFIX:
        raise LoraUnsupported(
            source.name, f"is converted to a file that ends in {SUFFIX}, not to {target.name!r}"
        )
    if target.exists() and not overwrite:
        raise FileExistsError(17, "is there already; --force replaces it", str(target))
    tensors = _plain(source.name, flatten(source.name, load(source, limits)), limits)
    _write(source.name, tensors, target, limits, overwrite=overwrite)
    return target


def load(source: Path, limits: ReadLimits = DEFAULT_LIMITS) -> Any:  # noqa: ANN401 - whatever the pickle holds
    """Read a pickle without running what is in it.

    Raises:
        LoraUnsupported, LoraMalformed, OSError: as `convert` does.

    """
    name, size = source.name, source.stat().st_size
    if size > limits.max_file_bytes:
        raise LoraMalformed(name, f"the file has {size:,} bytes; at most {limits.max_file_bytes:,} are read")
    with open_regular(source) as raw, io.BufferedReader(raw) as file:
        if not file.read(len(max(PICKLE_STARTS, key=len))).startswith(PICKLE_STARTS):
            raise LoraUnsupported(name, _no_pickle(source))
        file.seek(0)
        try:
            with warnings.catch_warnings(action="ignore"):  # about protocols, in words for programmers
                return torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever bytes can make the unpickler raise
            if isinstance(error, OSError | MemoryError):
                raise
            raise _refusal(name, error) from error


def _no_pickle(source: Path) -> str:
    try:
        reading.read_shapes(source.resolve())
    except LoraError:
        return "is no PyTorch pickle, and no safetensors file either"
    return "is a safetensors file already; give it that ending"


def _refusal(name: str, error: Exception) -> LoraError:
    said = str(error)
    if found := _GLOBAL.search(said):
        what = (found[1] or found[2]).rstrip(".,")
        return LoraUnsupported(
            name,
            f"holds code ({what!r}), not only weights; nothing of it was run. Ask for a safetensors file",
        )
    if "eights only load failed" in said:
        return LoraUnsupported(
            name, "holds more than weights; nothing of it was run. Ask for a safetensors file"
        )
    return LoraMalformed(
        name, f"is no PyTorch pickle that can be read ({type(error).__name__}); fetch it again"
    )


def flatten(name: str, loaded: object) -> Mapping[str, Any]:
    """Find the map of tensors in what a pickle held; cloneofsimo's list becomes its numbered keys.

    Raises:
        LoraUnsupported: there is none.

    """
    while isinstance(loaded, Mapping):
        inner = next((loaded[key] for key in WRAPPERS if isinstance(loaded.get(key), Mapping)), None)
        if inner is None:
            break
        loaded = inner
    if isinstance(loaded, Mapping) and isinstance(loaded.get("string_to_param"), Mapping):
        loaded = {"emb_params": next(iter(loaded["string_to_param"].values()), None)}
    if isinstance(loaded, Mapping):
        return {str(key): value for key, value in loaded.items()}
    if isinstance(loaded, Sequence) and loaded and all(isinstance(item, Tensor) for item in loaded):
        return dict(_numbered(name, loaded))
    raise LoraUnsupported(name, f"holds {type(loaded).__name__}, no map of tensors and no list of factors")


def _numbered(name: str, factors: Sequence[Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Name the factors (up, down, up, down, ...) as cloneofsimo's own safetensors files do.

    Text encoders are as wide everywhere, U-Nets are not: that tells of which of the two a list is.
    """
    if len(factors) % 2 or any(factor.ndim not in (2, 4) for factor in factors):
        raise LoraUnsupported(name, f"holds a list of {len(factors)} tensors that are no pairs of factors")
    widths = {factor.shape[0] for factor in factors[::2]} | {factor.shape[1] for factor in factors[1::2]}
    component = "text_encoder" if len(widths) == 1 else "unet"
    for number, (up, down) in enumerate(zip(factors[::2], factors[1::2], strict=True)):
        yield f"{component}:{number}:up", up
        yield f"{component}:{number}:down", down


def _plain(name: str, found: Mapping[str, Any], limits: ReadLimits) -> dict[str, Tensor]:
    """Return what is a tensor, or a number that stands for one, each with memory of its own.

    Raises:
        LoraUnsupported, LoraMalformed: nothing is, or a tensor has no form in safetensors; names the key.

    """
    tensors: dict[str, Tensor] = {}
    total = 0
    for key, item in found.items():
        is_number = isinstance(item, int | float) and key.endswith(NUMBERS)
        value = torch.tensor(float(item)) if is_number else item
        if not isinstance(value, Tensor):
            continue
        if value.layout is not torch.strided or value.dtype not in DTYPES.values() or value.is_quantized:
            raise LoraUnsupported(name, f"tensor {key!r} is {value.dtype}, {value.layout}", key=key)
        total += value.numel() * value.element_size()
        if total > limits.max_file_bytes:
            raise LoraMalformed(name, f"its tensors have more than {limits.max_file_bytes:,} bytes", key=key)
        tensors[key] = value.detach().clone(memory_format=torch.contiguous_format)
    if not tensors:
        raise LoraUnsupported(name, "holds no tensors")
    return tensors


def _write(
    name: str, tensors: dict[str, Tensor], target: Path, limits: ReadLimits, *, overwrite: bool
) -> None:
    """Read what was made as the service will, write it beside the target, and only then give it its name."""
    content = save(tensors, METADATA)
    reading.read(content, name, limits)
    beside = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with beside.open("xb") as file:
            file.write(content)
        if not overwrite:
            target.open("xb").close()  # fails if somebody made one meanwhile
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)
