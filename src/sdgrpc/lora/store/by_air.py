"""The local file that an id of CivitAI's means: by the records that lie beside files, and by their hashes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraChanged, LoraNotFound
from sdgrpc.lora.files.hashing import Hashes
from sdgrpc.lora.store.air import LORAS, Air
from sdgrpc.lora.store.beside import INFO, BesideFiles
from sdgrpc.lora.store.contents import FoundLora
from sdgrpc.lora.store.folders import FolderIndex, IndexedFile

SHOWN = 5
SHA256_DIGITS = 64

Record = tuple[Path, Air]
"""A `.civitai.info` file, and what it identifies."""


def by_air(
    name: str,
    wanted: Air,
    index: FolderIndex,
    beside: BesideFiles,
    hashes_of: Callable[[IndexedFile], Hashes],
    find: Callable[[LoraRef], FoundLora],
) -> FoundLora:
    """Return the file of the version that is meant, wherever it lies and whatever it is called.

    A record is believed of the file beside it if it lists no hashes, or one that the file has; else whatever
    file has one of its hashes is taken. `hashes_of` and `find` read files, and block.

    Raises:
        LoraNotFound: there is none, or several versions; says what was looked at.

    """
    if wanted.kind not in LORAS:
        raise LoraNotFound(name, f"{name!r} names a resource of the type {wanted.kind!r}, which is no LoRA")
    files = [file for file in index.files() if file.is_safetensors]
    records = [(info, found) for info in index.infos() if (found := beside.record(info))]
    meant = [(info, record) for info, record in records if record.is_of(wanted)]
    versions = sorted({record.version for _, record in meant})
    if len(versions) > 1:
        raise LoraNotFound(
            name,
            f"the model of {name!r} is here in the versions {_listed(versions)}; name one, as @{versions[0]}",
        )
    for file in _beside_records(meant, wanted, files, hashes_of):
        return find(LoraRef(name=file.name))
    hashes = frozenset().union(*(record.hashes_of(wanted.file) for _, record in meant))
    for digits in hashes:
        if len(digits) == SHA256_DIGITS:
            with suppress(LoraNotFound):
                return find(LoraRef(sha256=digits))
    for file in files:
        if _has(hashes_of, file, hashes):
            return find(LoraRef(name=file.name))
    raise LoraNotFound(name, _not_found(name, wanted, records, meant))


def _beside_records(
    meant: Sequence[Record],
    wanted: Air,
    files: Sequence[IndexedFile],
    hashes_of: Callable[[IndexedFile], Hashes],
) -> Iterator[IndexedFile]:
    """Yield the files beside the records that are meant, where these do not say that they are others."""
    beside = {file.seen.with_suffix(""): file for file in files}
    for info, record in meant:
        file = beside.get(info.with_name(info.name.removesuffix(INFO)))
        if file is None:
            continue
        if not record.hashes or _has(hashes_of, file, record.hashes_of(wanted.file)):
            yield file


def _has(hashes_of: Callable[[IndexedFile], Hashes], file: IndexedFile, hashes: frozenset[str]) -> bool:
    with suppress(LoraNotFound, LoraChanged):
        found = hashes_of(file)
        return bool(hashes & {found.sha256, found.autov3})
    return False


def _not_found(name: str, wanted: Air, records: Sequence[Record], meant: Sequence[Record]) -> str:
    """Say what was looked at."""
    if meant:
        infos = _listed([info.name for info, _ in meant])
        return f"no LoRA {name!r} here: {infos} is its record, but no file here has a hash that stands in it"
    others = sorted({record.version for _, record in records if record.model == wanted.model})
    if others:
        return (
            f"no LoRA {name!r} here; of its model there is {_listed([f'@{version}' for version in others])}"
        )
    looked = f"none of the {len(records)} {INFO} files in this server's folders is of it"
    return f"no LoRA {name!r} here: {looked}; put its record beside the file, or use its name or sha256"


def _listed(things: Sequence[object]) -> str:
    more = f" and {len(things) - SHOWN} more" if len(things) > SHOWN else ""
    return ", ".join(map(str, things[:SHOWN])) + more
