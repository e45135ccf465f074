"""Settings as text: lists, NAME=VALUE entries, the file, and the sentence that tells of a wrong one."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sdgrpc.errors import SettingsError

PREFIX = "SDGRPC_"


def split(value: object, separator: str) -> object:
    """A list from the environment: JSON, or parts between separators."""
    if not isinstance(value, str):
        return value
    if value.startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            raise ValueError("starts like a JSON list but is none") from None
    return [part.strip() for part in value.split(separator) if part.strip()]


def model_entry(entry: str) -> tuple[str, str]:
    """`photo=/models/p` as ("photo", "/models/p"); a source without a name gets its file's or folder's."""
    name, found, source = entry.partition("=")
    if not found or "/" in name:
        name, source = entry.rstrip("/").rpartition("/")[2].removesuffix(".safetensors"), entry
    if not name.strip() or not source.strip():
        raise ValueError(f"{entry!r} is not NAME=SOURCE or SOURCE")
    return name.strip(), source.strip()


def rows_entry(entry: str) -> tuple[str, int]:
    """`8` as ("", 8) and `photo=4` as ("photo", 4)."""
    name, found, number = entry.rpartition("=")
    if not re.fullmatch(r"0*[1-9]\d{0,8}", number.strip()) or (found and not name.strip()):
        raise ValueError(f"{entry!r} is not N or NAME=N with a number from 1")
    return name.strip(), int(number)


def check_toml(path: Path) -> None:
    """Say what is wrong with a settings file; a missing one would be passed over."""
    try:
        tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def sentence(error: Mapping[str, Any], flags: Mapping[str, object]) -> str:
    """`max_steps (SDGRPC_MAX_STEPS): input should be greater than or equal to 1, not 0`."""
    text = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return text
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{name}: there is no such setting"
    variable = PREFIX + name.upper()
    source = f" ({variable})" if name not in flags and variable in os.environ else ""
    shown = "" if error["type"] == "value_error" else f", not {error['input']!r}"
    return f"{name}{source}: {text[0].lower()}{text[1:]}{shown}"
