"""What `--json` prints: the contract's words for the same things, wherever they come from."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, in the contract's words.")]


def print_json(value: object, *, line: bool = False) -> None:
    """Print a record, or a list of them; as one line where more will follow."""
    typer.echo(json.dumps(plain(value), indent=None if line else 2, ensure_ascii=False))


def plain(value: Any) -> Any:  # noqa: ANN401 - JSON
    """Return records, enums, paths and times as JSON has them."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, Path) else value
