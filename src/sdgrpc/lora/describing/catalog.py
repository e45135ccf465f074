"""What a library has, told page by page. Hashing and parsing block: call it in threads."""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from sdgrpc.domain import LoraDetails, LoraInfo, LoraModuleInfo, LoraPage, LoraQuery, LoraRef
from sdgrpc.errors import LoraError, LoraNotFound
from sdgrpc.lora.bases.detect import base_of
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing.inspect import inspect
from sdgrpc.lora.describing.summary import LoraSummary, summarize
from sdgrpc.lora.dialects.adapt import adapt, read_config
from sdgrpc.lora.dialects.peft import PeftConfig
from sdgrpc.lora.files import reading
from sdgrpc.lora.store.library import LoraEntry, LoraLibrary

KEPT_SUMMARIES = 10_000

Fingerprint = tuple[Path, int, int, int, str, str]


class LoraCatalog:
    """Describes the files of `library`; what was read is kept while a file stays the same. Thread safe."""

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
                summary = self._summary(entry, query.model, model)
                if (query.base and summary.base != query.base) or (query.fitting_only and not summary.fits):
                    continue
                if len(found) == query.limit:
                    return LoraPage(tuple(found), more=True)
                found.append(_info(entry, summary, self._library.hash_of_entry(entry)))
            except (OSError, LoraNotFound):
                continue  # it has just been removed
        return LoraPage(tuple(found), more=False)

    def details(self, ref: LoraRef, name: str, model: Target, *, include_modules: bool) -> LoraDetails:
        """Describe one file, judged against the model that is called `name`.

        Raises:
            LoraNotFound: as `LoraLibrary.find`, or it was removed meanwhile.

        """
        entry = self._library.entry(ref)
        try:
            info = _info(entry, self._summary(entry, name, model), self._library.hash_of_entry(entry))
            details = _sketched(entry, info)
            return replace(details, modules=_modules(entry)) if include_modules else details
        except OSError as error:
            raise LoraNotFound(entry.name, f"LoRA {entry.name!r} cannot be read: {error.strerror}") from error

    def _summary(self, entry: LoraEntry, name: str, model: Target) -> LoraSummary:
        stat = entry.path.stat()
        config = read_config(entry.path)
        unchanged = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
        key = (entry.path, *unchanged, config, f"{name}\n{entry.name}")
        with self._lock:
            if key in self._summaries:
                self._summaries.move_to_end(key)
                return self._summaries[key]
        summary = replace(summarize(entry.path, entry.name, model=model), metadata={})
        with self._lock:
            self._summaries[key] = summary
            while len(self._summaries) > KEPT_SUMMARIES:
                self._summaries.popitem(last=False)
        return summary


def _info(entry: LoraEntry, summary: LoraSummary, sha256: str) -> LoraInfo:
    return LoraInfo(
        name=entry.name,
        sha256=sha256,
        size=summary.size,
        modified=entry.path.stat().st_mtime,
        base=summary.base,
        algorithms=summary.algorithms,
        rank_min=summary.rank_min,
        rank_max=summary.rank_max,
        trigger_words=summary.trigger_words,
        refusal=summary.refusal,
    )


def _sketched(entry: LoraEntry, info: LoraInfo) -> LoraDetails:
    """What the header says, as far as the file can be understood."""
    try:
        file = reading.sketch(entry.path, entry.name)
    except LoraError:
        return LoraDetails(info, 0, 0, (), {})
    metadata = summarize(entry.path, entry.name).metadata
    try:
        adapter = adapt(file, PeftConfig.from_json(read_config(entry.path)))
    except LoraError:
        return LoraDetails(info, len(file.tensors), 0, (), metadata)
    found = base_of(adapter)
    unmatched = tuple(found[1].unmatched(adapter)) if found else ()
    return LoraDetails(info, len(file.tensors), len(adapter.modules), unmatched, metadata)


def _modules(entry: LoraEntry) -> tuple[LoraModuleInfo, ...]:
    return tuple(
        LoraModuleInfo(
            component=module["component"],
            path=module["module"],
            algorithm=module["algorithm"],
            rank=module["rank"],
            alpha=module["alpha"],
            delta_norm=module["delta_norm"],
        )
        for module in inspect(entry.path)["modules"]
    )
