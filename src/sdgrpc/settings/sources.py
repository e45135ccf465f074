"""Where each value was said."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sdgrpc.settings.described import described_settings
from sdgrpc.settings.environment import check_toml
from sdgrpc.settings.settings import Settings
from sdgrpc.settings.text import shown, variable


@dataclass(frozen=True, slots=True)
class ValueWithSource:
    """A setting's value as text, and where it was said: `--listen`, `SDGRPC_LISTEN`, a file, or `default`."""

    name: str
    value: str
    source: str


def sources_of(
    settings: Settings, config: Path | None, flags: Collection[str]
) -> tuple[ValueWithSource, ...]:
    """Return every value with its source, in the order of help; `flags` are the settings given as flags."""
    in_file = check_toml(config) if config is not None else {}
    given = {name.upper() for name, value in os.environ.items() if value}

    def source(name: str, value: object) -> str:
        if name in flags:
            return ("--no-" if value is False else "--") + name.replace("_", "-")
        if variable(name) in given:
            return variable(name)
        return str(config) if name in in_file else "default"

    values = {one.name: getattr(settings, one.name) for one in described_settings()}
    return tuple(ValueWithSource(name, shown(value), source(name, value)) for name, value in values.items())
