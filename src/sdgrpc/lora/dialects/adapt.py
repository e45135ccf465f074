"""The one way in: a file of any dialect becomes an adapter, or is refused by name.

Whoever wants a LoRA file asks here: `read_adapter` for all of it, `sketch_adapter` for what its header says.
What is no LoRA for Stable Diffusion is refused by its keys, before any of its data is read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.errors import LoraError, LoraIncompatible
from sdgrpc.lora.dialects.adapter import Adapter
from sdgrpc.lora.dialects.foreign import EMBEDDING, reject_foreign
from sdgrpc.lora.dialects.keys import parse
from sdgrpc.lora.dialects.peft import PeftConfig
from sdgrpc.lora.files import reading
from sdgrpc.lora.files.reading import DEFAULT_LIMITS, ReadLimits, TensorFile
from sdgrpc.regular_files import read_regular

EMBEDDING_WIDTHS = frozenset({768, 1024, 1280})

CONFIG_NAME = "adapter_config.json"
MAX_CONFIG_BYTES = 1 << 20


@dataclass(frozen=True, eq=False)
class Sketch:
    """What a file says without its data: the adapter with its tensors on the meta device, or why it is none.

    Of a file that is refused the metadata and the number of tensors are there as far as its header is sound.
    """

    name: str
    adapter: Adapter | None = None
    refusal: LoraError | None = None
    metadata: Mapping[str, str] = field(default_factory=dict, repr=False)
    tensor_count: int = 0


def read_adapter(
    source: Path | bytes,
    name: str,
    limits: ReadLimits = DEFAULT_LIMITS,
    *,
    config: str | None = None,
    expected: str = "",
    alive: Callable[[], None] = lambda: None,
) -> Adapter:
    """Read, hash and check a whole file.

    Args:
        source: where it is, or what is in it.
        name: what to call it in messages.
        limits: what it may claim at most.
        config: the text of a PEFT configuration; None takes what is beside the file.
        expected: the hash of the content that is wanted, where it is known.
        alive: called before each piece that is read; what it raises ends the reading.

    Raises:
        LoraIncompatible: it is for another architecture, or no LoRA; no data was read.
        LoraMalformed, LoraUnsupported: as `reading.read` and `keys.parse` do.
        OSError: it cannot be opened, or is no regular file.

    """
    if config is None:
        config = read_config(source) if isinstance(source, Path) else ""
    file = reading.read(source, name, limits, reject_foreign, expected=expected, alive=alive)
    return _adapt_own(file, PeftConfig.from_json(config))


def sketch_adapter(
    path: Path, name: str, limits: ReadLimits = DEFAULT_LIMITS, *, config: str | None = None
) -> Sketch:
    """Read the header of a file; what is wrong with the file is said by `refusal`.

    Raises:
        OSError: it cannot be opened, or is no regular file.

    """
    try:
        file = reading.sketch(path, name, limits)
    except LoraError as error:
        return Sketch(name, refusal=error)
    try:
        adapter = adapt(file, PeftConfig.from_json(read_config(path) if config is None else config))
    except LoraError as error:
        return Sketch(name, None, error, file.metadata, len(file.tensors))
    return Sketch(name, adapter, None, file.metadata, len(file.tensors))


def adapt(file: TensorFile, config: PeftConfig | None = None) -> Adapter:
    """Turn a file that was read into an adapter unless it is for another architecture.

    Raises:
        LoraIncompatible: says what the file is for.
        LoraMalformed, LoraUnsupported: as `keys.parse` does.

    """
    reject_foreign(file.name, file.tensors)
    return _adapt_own(file, config)


def _adapt_own(file: TensorFile, config: PeftConfig | None) -> Adapter:
    """Adapt a file whose keys `reject_foreign` has seen."""
    adapter = parse(file, config)
    if not adapter.modules:
        told = EMBEDDING if _is_embedding(file) else "holds no LoRA tensors of any format that is known"
        raise LoraIncompatible(file.name, told)
    return adapter


def _is_embedding(file: TensorFile) -> bool:
    """Whether every tensor is a row of vectors of a text encoder's width, under a plain word as its key."""
    return bool(file.tensors) and all(
        tensor.ndim in (1, 2) and tensor.shape[-1] in EMBEDDING_WIDTHS and "." not in key
        for key, tensor in file.tensors.items()
    )


def read_config(path: Path, *, follow_links: bool = False) -> str:
    """Return the text of a PEFT configuration beside a file; empty where there is none that can be read.

    A pipe, a device or a folder of that name is none, nor is a link unless links are followed.
    """
    try:
        return read_regular(path.parent / CONFIG_NAME, MAX_CONFIG_BYTES, follow_links=follow_links).decode(
            "utf-8"
        )
    except (OSError, ValueError):
        return ""
