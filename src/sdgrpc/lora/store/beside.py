"""What other tools put beside a LoRA file: trigger words, the strength it is meant for, a picture, its ids.

`NAME.json` is written by A1111's web UI ("activation text", "preferred weight"), `NAME.civitai.info` by its
helpers: it is CivitAI's record of a model's version. Pictures are `NAME.preview.png` and the like, or
`NAME.png`. Nothing of it has to be right: what cannot be used is ignored, with a warning.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sdgrpc.lora.store.air import Air, air_of
from sdgrpc.regular_files import read_regular

INFO = ".civitai.info"
USER, MAX_USER_BYTES, MAX_INFO_BYTES = ".json", 1 << 20, 8 << 20
ENDINGS = ("png", "jpg", "jpeg", "webp")
PICTURES = (*(f".preview.{ending}" for ending in ENDINGS), *(f".{ending}" for ending in ENDINGS))
LONGEST, MOST_WORDS, KEPT = 200, 20, 20_000

Stamp = tuple[tuple[int, int] | None, ...]


@dataclass(frozen=True, slots=True)
class Beside:
    """What lies beside a file.

    Attributes:
        trigger_words: as the user wrote them, then as CivitAI has them.
        preferred_strength: what it is meant for; None where nobody says.
        air: CivitAI's id of it as a resource identifier; empty where it has none.
        base_model: what CivitAI calls the model that it is for.
        picture: where a picture of what it draws lies.
        record: what identifies it on CivitAI.
        warnings: what was ignored, a sentence each.

    """

    trigger_words: tuple[str, ...] = ()
    preferred_strength: float | None = None
    air: str = ""
    base_model: str = ""
    picture: Path | None = None
    record: Air | None = None
    warnings: tuple[str, ...] = ()


NOTHING = Beside()


class BesideFiles:
    """Reads what lies beside files, once as long as it stays the same. Thread safe."""

    def __init__(self, *, follow_links: bool = False) -> None:
        self._follow_links = follow_links
        self._known: dict[Path, tuple[Stamp, Beside]] = {}
        self._lock = threading.Lock()

    def of(self, file: Path) -> Beside:
        """Return what lies beside a LoRA file."""
        stem = file.with_suffix("")
        paths = [Path(f"{stem}{ending}") for ending in (USER, INFO, *PICTURES)]
        stamps = tuple(map(self._stamp, paths))
        if not any(stamps):
            return NOTHING
        with self._lock:
            known = self._known.get(file)
        if known is None or known[0] != stamps:
            found = self._read(*(path if stamp else None for path, stamp in zip(paths, stamps, strict=True)))
            known = stamps, found
            with self._lock:
                if len(self._known) >= KEPT:
                    self._known.clear()
                self._known[file] = known
        return known[1]

    def record(self, info: Path) -> Air | None:
        """Return what a `.civitai.info` file identifies; None where it cannot be read."""
        return self.of(info.with_name(f"{info.name.removesuffix(INFO)}.safetensors")).record

    def picture(self, path: Path, most_bytes: int) -> bytes:
        """Return a picture's file; raises OSError."""
        return read_regular(path, most_bytes, follow_links=self._follow_links)

    def _stamp(self, path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat() if self._follow_links else path.lstat()
        except (OSError, ValueError):
            return None
        return found.st_size, found.st_mtime_ns

    def _read(self, user: Path | None, info: Path | None, *pictures: Path | None) -> Beside:
        warnings: list[str] = []
        told = self._object(user, MAX_USER_BYTES, warnings)
        record = self._object(info, MAX_INFO_BYTES, warnings)
        air = air_of(record)
        return Beside(
            trigger_words=_words(told.get("activation text"), record.get("trainedWords")),
            preferred_strength=_strength(told.get("preferred weight"), user, warnings),
            air=str(air) if air else "",
            base_model=_text(record.get("baseModel")),
            picture=next(filter(None, pictures), None),
            record=air,
            warnings=tuple(warnings),
        )

    def _object(self, path: Path | None, most_bytes: int, warnings: list[str]) -> Mapping[str, Any]:
        """Return a JSON object; an empty one, and a warning, where the file is none."""
        if path is None:
            return {}
        try:
            found = json.loads(read_regular(path, most_bytes, follow_links=self._follow_links))
        except OSError as error:
            warnings.append(f"{path.name} is ignored: it {_why(error)}")
        except (ValueError, RecursionError):
            warnings.append(f"{path.name} is ignored: it is no JSON")
        else:
            if isinstance(found, dict):
                return found
            warnings.append(f"{path.name} is ignored: it is no JSON object")
        return {}


def _why(error: OSError) -> str:
    reason = error.strerror or "cannot be read"
    return (
        reason if reason.startswith(("has ", "is ")) else f"cannot be read ({os.strerror(error.errno or 0)})"
    )


def _words(*told: object) -> tuple[str, ...]:
    """Return words and phrases between commas, each once."""
    words: dict[str, str] = {}
    for text in _texts(told):
        for word in text.split(","):
            clean = " ".join(word.split())
            if 0 < len(clean) <= LONGEST:
                words.setdefault(clean.casefold(), clean)
    return tuple(words.values())[:MOST_WORDS]


def _texts(told: object) -> Iterator[str]:
    if isinstance(told, str):
        yield told
    elif isinstance(told, (list, tuple)):
        for one in told[:1000]:
            yield from _texts(one) if isinstance(one, (str, list)) else ()


def _strength(told: object, path: Path | None, warnings: list[str]) -> float | None:
    """Return a number; the web UI writes 0 where nobody chose one."""
    if told in (None, 0, "") or path is None:
        return None
    if isinstance(told, (int, float)) and not isinstance(told, bool) and abs(told) <= 1000:
        return float(told) if math.isfinite(told) else None
    warnings.append(f"{path.name}: its preferred weight is no number of -1000 to 1000, and ignored")
    return None


def _text(told: object) -> str:
    return " ".join(told.split())[:LONGEST] if isinstance(told, str) else ""
