"""The textual inversions of some folders, by the words that they are."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sdgrpc.domain.embeddings import EmbeddingInfo
from sdgrpc.lora.dialects.tokens import Vectors
from sdgrpc.lora.embeddings.files import Embedding, read_embedding
from sdgrpc.lora.store.folders import FolderIndex, IndexedFile


@dataclass(frozen=True, eq=False)
class Learned:
    """Words of a prompt, in lower case, for some text encoders.

    Attributes:
        tokens: word -> vectors.
        refused: word -> why the text encoders cannot use it.
        hashes: the words that can be used, as their files spell them, with the files' SHA-256.

    """

    tokens: Mapping[str, Vectors] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    hashes: tuple[tuple[str, str], ...] = ()


NOTHING = Learned()


class EmbeddingLibrary:
    """Finds textual inversions by their words: their files' names without folder and ending. Thread safe.

    Several files may be called alike, in folders of their own: a model uses the first that fits it. A file
    is read when a prompt uses it, once as long as it stays the same.
    """

    def __init__(self, folders: Sequence[Path] = (), *, follow_links: bool = False) -> None:
        self._index = FolderIndex(folders, follow_links=follow_links) if folders else None
        self._read: dict[Path, tuple[IndexedFile, Embedding]] = {}
        self._lock = threading.Lock()

    def words(self) -> dict[str, list[IndexedFile]]:
        """Return the words that there are now, in lower case, with their files."""
        found: dict[str, list[IndexedFile]] = defaultdict(list)
        for file in self._index.files() if self._index else ():
            if file.is_safetensors:
                found[word_of(file).lower()].append(file)
        return dict(found)

    def learned(self, words: Collection[str], widths: Mapping[str, int]) -> Learned:
        """Read the files of words, in lower case, for text encoders of these widths."""
        known = self.words() if words else {}
        tokens: dict[str, Vectors] = {}
        refused: dict[str, str] = {}
        hashes: list[tuple[str, str]] = []
        for word in sorted(words):
            whys = []
            for file in known.get(word, ()):
                embedding = self._embedding(file)
                vectors = embedding.for_widths(widths)
                if not isinstance(vectors, str):
                    tokens[word] = vectors
                    hashes.append((word_of(file), embedding.sha256))
                    break
                whys.append(vectors)
            else:
                if whys:
                    refused[word] = whys[0]
        return Learned(tokens, refused, tuple(hashes))

    def listed(self, widths: Mapping[str, int] | None = None) -> tuple[EmbeddingInfo, ...]:
        """Describe every file, by name, judged for text encoders of these widths, or for any; reads them."""
        return tuple(self._info(file, widths) for _, files in sorted(self.words().items()) for file in files)

    def _info(self, file: IndexedFile, widths: Mapping[str, int] | None) -> EmbeddingInfo:
        embedding = self._embedding(file)
        judged = embedding.refusal if widths is None else embedding.for_widths(widths)
        return EmbeddingInfo(
            name=word_of(file),
            sha256=embedding.sha256,
            size=file.size,
            modified=file.modified_ns / 1e9,
            base=embedding.base,
            vectors=embedding.vectors,
            refusal=judged if isinstance(judged, str) else "",
        )

    def _embedding(self, file: IndexedFile) -> Embedding:
        with self._lock:
            known = self._read.get(file.path)
        if known is None or known[0] != file:
            known = file, read_embedding(file.path, word_of(file))
            with self._lock:
                self._read[file.path] = known
        return known[1]


def word_of(file: IndexedFile) -> str:
    """The word that a file is: its name without folder and ending."""
    return file.name.rpartition("/")[2]
