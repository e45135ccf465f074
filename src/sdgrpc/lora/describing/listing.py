"""What a library has, told page by page. Hashing and parsing block: call it in threads."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sdgrpc.domain import LoraDetails, LoraInfo, LoraModuleInfo, LoraPage, LoraQuery, LoraRef
from sdgrpc.domain.bases import UNKNOWN
from sdgrpc.errors import LoraChanged, LoraError, LoraNotFound
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing.inspect import describe_modules
from sdgrpc.lora.describing.metadata import joined_words
from sdgrpc.lora.describing.summary import LoraSummary, summary_of
from sdgrpc.lora.dialects.adapt import sketch_adapter
from sdgrpc.lora.files.hashing import Hashes
from sdgrpc.lora.store.beside import Beside
from sdgrpc.lora.store.library import FoundLora, LoraEntry, LoraLibrary

KEPT_SUMMARIES = 10_000

Fingerprint = tuple[Path, int, int, int, str, str]


class LoraCatalog:
    """Describes the files of `library`; what was read is kept while a file stays the same. Thread safe.

    A header is opened once for a page, and once for a file's details. The content is read for its hash, and
    for its modules only where the library has not kept what it read.
    """

    def __init__(self, library: LoraLibrary) -> None:
        self._library = library
        self._summaries: OrderedDict[Fingerprint, LoraSummary] = OrderedDict()
        self._lock = threading.Lock()

    def page(
        self, query: LoraQuery, model: Target, is_unwanted: Callable[[], bool] = lambda: False
    ) -> LoraPage:
        """List files by name; `is_unwanted` is asked before each file and ends it early.

        Files that come or go between two pages shift nothing: a page begins after the last one's name.
        """
        entries = self._library.entries()
        found: list[LoraInfo] = []
        for entry in entries[bisect_right(entries, query.after, key=lambda entry: entry.name) :]:
            if is_unwanted():
                break
            try:
                summary = self._kept(entry, query.model, model)
                if (query.base and summary.base != query.base) or (query.fitting_only and not summary.fits):
                    continue
                if len(found) == query.limit:
                    return LoraPage(tuple(found), more=True)
                hashes, beside = self._library.hashes_of_entry(entry), self._library.beside(entry)
                found.append(_info(entry, summary, hashes, beside))
            except (OSError, LoraNotFound, LoraChanged):
                continue  # it has just been removed, or is being written
        return LoraPage(tuple(found), more=False)

    def details(self, ref: LoraRef, name: str, model: Target, *, include_modules: bool) -> LoraDetails:
        """Describe one file, judged against the model that is called `name`.

        Raises:
            LoraNotFound, LoraChanged: as `LoraLibrary.find`, or it was removed meanwhile.

        """
        file = self._library.find(ref)
        entry = self._library.entry_of(file)
        try:
            config = self._library.config_of(entry)
            summary = self._read(entry, config, model, _fingerprint(entry, config, name))
            beside = self._library.beside(entry)
            info = _info(entry, summary, self._library.hashes_of_entry(entry), beside)
        except OSError as error:
            raise LoraNotFound(entry.name, f"LoRA {entry.name!r} cannot be read: {error.strerror}") from error
        return LoraDetails(
            info=info,
            tensor_count=summary.tensors,
            module_count=summary.modules,
            unmatched=summary.unmatched,
            metadata=summary.metadata,
            modules=_modules(file, summary.base) if include_modules else (),
            picture=beside.picture,
            beside_warnings=beside.warnings,
        )

    def _kept(self, entry: LoraEntry, name: str, model: Target) -> LoraSummary:
        """Return what a page tells of a file, read only if it is new or has changed."""
        config = self._library.config_of(entry)
        fingerprint = _fingerprint(entry, config, name)
        with self._lock:
            if fingerprint in self._summaries:
                self._summaries.move_to_end(fingerprint)
                return self._summaries[fingerprint]
        return self._read(entry, config, model, fingerprint)

    def _read(self, entry: LoraEntry, config: str, model: Target, fingerprint: Fingerprint) -> LoraSummary:
        """Summarise a file by its header, and keep of it what pages tell."""
        sketch = sketch_adapter(entry.path, entry.name, config=config)
        summary = summary_of(sketch, entry.path.stat().st_size, model=model)
        with self._lock:
            self._summaries[fingerprint] = replace(summary, metadata={}, unmatched=())
            while len(self._summaries) > KEPT_SUMMARIES:
                self._summaries.popitem(last=False)
        return summary


def _fingerprint(entry: LoraEntry, config: str, model: str) -> Fingerprint:
    """Return what changes with a file, its configuration, and what it is judged against."""
    stat = entry.path.stat()
    return entry.path, stat.st_size, stat.st_mtime_ns, stat.st_ino, config, f"{model}\n{entry.name}"


def _info(entry: LoraEntry, summary: LoraSummary, hashes: Hashes, beside: Beside) -> LoraInfo:
    return LoraInfo(
        name=entry.name,
        sha256=hashes.sha256,
        size=summary.size,
        modified=entry.path.stat().st_mtime,
        base=summary.base,
        algorithms=summary.algorithms,
        rank_min=summary.rank_min,
        rank_max=summary.rank_max,
        trigger_words=joined_words(beside, summary.trigger_words),
        refusal=summary.refusal,
        autov3=hashes.autov3,
        recommended=summary.recommended,
        preferred_strength=beside.preferred_strength,
        has_thumbnail=beside.picture is not None,
        air=beside.air,
        base_model=beside.base_model,
    )


def _modules(file: FoundLora, base: str) -> tuple[LoraModuleInfo, ...]:
    """Return what a file changes in its base; nothing where it cannot be used."""
    if base == UNKNOWN:
        return ()
    try:
        return describe_modules(file.adapter(), base)
    except LoraError:
        return ()
