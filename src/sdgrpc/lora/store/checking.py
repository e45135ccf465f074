"""Whether a whole file can be used with any base: what an upload has to pass."""

from __future__ import annotations

from pathlib import Path

from sdgrpc.errors import LoraIncompatible
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.detect import base_of, no_base
from sdgrpc.lora.bases.detect import check as check_placed
from sdgrpc.lora.dialects.adapt import read_adapter


def check(path: Path, name: str) -> None:
    """Read a file whole, as a job would, and find its base.

    Raises:
        LoraMalformed, LoraUnsupported, LoraIncompatible: it cannot be used; the message says why.
        OSError: it cannot be opened.

    """
    adapter = read_adapter(path, name, config="")  # what is beside an upload is no part of it
    found = base_of(adapter)
    if found is None:
        raise LoraIncompatible(name, no_base(adapter))
    check_placed(adapter, found[1], index(found[0]))
