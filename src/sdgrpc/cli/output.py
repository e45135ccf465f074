"""Where pictures go: file names from a pattern, or standard output."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from sdgrpc.cli.as_json import print_json
from sdgrpc.client import Result
from sdgrpc.terminal.text import printable

MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
FIELDS = ("{seed}", "{index}")
STANDARD_OUTPUT = "-"


@dataclass(frozen=True, slots=True)
class OutputPattern:
    """A file name in which `{seed}` and `{index}` (from 0) stand for an image's; `-` is standard output.

    `format` (`png`, `jpeg`, `webp`) goes before the suffix.

    Raises:
        ValueError: neither the suffix nor `format` is one of a format that the server writes.

    """

    text: str
    format: str = ""

    def __post_init__(self) -> None:
        if self.format and f".{self.format.lower()}" not in MEDIA_TYPES:
            raise ValueError(f"--format {self.format}: it is png, jpeg or webp")
        if not self.format and not self.is_stream and self._suffix not in MEDIA_TYPES:
            raise ValueError(f"--output {self.text}: the name must end in {', '.join(MEDIA_TYPES)}")

    @property
    def _suffix(self) -> str:
        return Path(self.text).suffix.lower()

    @property
    def is_stream(self) -> bool:
        """Whether the picture goes to standard output."""
        return self.text == STANDARD_OUTPUT

    @property
    def media_type(self) -> str:
        """The format that is asked for."""
        if self.format:
            return MEDIA_TYPES[f".{self.format.lower()}"]
        return MEDIA_TYPES.get(self._suffix, "image/png")

    def path(self, *, index: int, seed: int, count: int, one_seed: bool = False) -> Path:
        """Return image `index`'s file; of several in a pattern that tells none apart, `-index` is added.

        Variations have `one_seed`, which tells none apart.
        """
        path = Path(self.text.replace("{seed}", str(seed)).replace("{index}", str(index)))
        telling = FIELDS[1:] if one_seed else FIELDS
        if count > 1 and not any(field in self.text for field in telling):
            return path.with_stem(f"{path.stem}-{index}")
        return path

    def check(self, *, count: int, seed: int | None, as_json: bool) -> None:
        """See before anything is drawn that the pictures can be written.

        Raises:
            ValueError: standard output can take neither several pictures nor JSON beside one, and no
                terminal takes any.
            OSError: a file's folder cannot be made or written, or the file is a folder.

        """
        if not self.is_stream:
            for index in range(min(max(count, 1), 64)):
                _check_file(self.path(index=index, seed=(seed or 0) + index, count=count))
        elif count > 1:
            raise ValueError("--output -: standard output takes one picture; leave --count out")
        elif as_json:
            raise ValueError("--output -: standard output takes the picture or --json, not both")
        elif sys.stdout.isatty():
            raise ValueError("--output -: standard output is a terminal; send it to a file or a program")


def _check_file(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(21, "Is a directory", str(path))
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise NotADirectoryError(20, "Not a directory", str(folder))
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise PermissionError(13, "Permission denied", str(path))


def save(result: Result, pattern: OutputPattern, *, as_json: bool) -> None:
    """Write the pictures, say where they are, and what the server warned of."""
    for warning in result.accepted.warnings:
        typer.echo(printable(f"warning: {warning}"), err=True)
    for report in result.prepared.loras:
        for warning in report.warnings:
            typer.echo(printable(f"warning: LoRA {report.name}: {warning}"), err=True)
    images = []
    one_seed = len({image.seed for image in result.images}) == 1
    for image in result.images:
        if pattern.is_stream:
            sys.stdout.buffer.write(image.image.data)
            sys.stdout.buffer.flush()
            continue
        path = pattern.path(index=image.index, seed=image.seed, count=len(result.images), one_seed=one_seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
        if not as_json:
            typer.echo(f"saved {printable(str(path))} (seed {image.seed})")
        size = {"width": image.image.width, "height": image.image.height}
        images.append(
            {
                "index": image.index,
                "seed": image.seed,
                "path": path,
                "media_type": image.image.media_type,
                **size,
            }
        )
    if as_json:
        parts = {"accepted": result.accepted, "prepared": result.prepared, "images": images}
        print_json({**parts, "finished": result.finished})
