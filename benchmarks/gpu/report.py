"""What `benchmarks.gpu` prints of a section: a line for each number of seconds, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Record = Mapping[str, Any]


def lines(name: str, record: Record) -> str:
    """Return a section as text."""
    return "\n".join([f"== {name}", *_lines(record, "")])


def _lines(record: Record, before: str) -> Iterator[str]:
    for key, value in record.items():
        if key in ("range", "errors"):
            continue
        if key == "seconds" and isinstance(value, Mapping):
            spread, errors = record.get("range", {}), record.get("errors", {})
            for what, middle in value.items():
                yield _line(f"{before}{what}", middle, spread.get(what), errors.get(what))
        elif isinstance(value, Mapping):
            yield f"{before}{key}"
            yield from _lines(value, before + "  ")
        else:
            yield f"{before}{key}: {value:.4g}" if isinstance(value, float) else f"{before}{key}: {value}"


def _line(what: str, middle: float, spread: tuple[float, float] | None, error: float | None) -> str:
    text = f"{what:<40}{1e3 * middle:>10.2f} ms"
    if spread is not None:
        text += f"  ({1e3 * spread[0]:.2f} to {1e3 * spread[1]:.2f})"
    return text if error is None else f"{text}  error {error:.1e}"
