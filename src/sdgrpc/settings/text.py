"""Settings as text: lists, NAME=VALUE entries, sizes, and the sentence that tells of a wrong one."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

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


def vae_entry(entry: str) -> tuple[str, Path]:
    """`photo=/models/vae` as ("photo", a path)."""
    name, _, place = entry.partition("=")
    if not name.strip() or not place.strip():
        raise ValueError(f"{entry!r} is not NAME=PATH with a model's name")
    return name.strip(), Path(place.strip()).expanduser()


def rows_entry(entry: str) -> tuple[str, int]:
    """`8` as ("", 8) and `photo=4` as ("photo", 4)."""
    name, found, number = entry.rpartition("=")
    if not re.fullmatch(r"0*[1-9]\d{0,8}", number.strip()) or (found and not name.strip()):
        raise ValueError(f"{entry!r} is not N or NAME=N with a number from 1")
    return name.strip(), int(number)


def replica_range(text: str) -> tuple[int, int]:
    """Return the least and the most replicas of `N` or `MIN:MAX`; raises ValueError."""
    low, _, high = text.partition(":")
    if not (low.isdecimal() and (high or low).isdecimal()) or not 1 <= int(low) <= int(high or low):
        raise ValueError(f"{text!r} is not N or MIN:MAX, such as 2 or 1:4")
    return int(low), int(high or low)


def size_entry(entry: str) -> tuple[int, int]:
    """`512x768` as (512, 768)."""
    found = re.fullmatch(r"([1-9]\d{1,3})x([1-9]\d{1,3})", entry.strip())
    if found is None or int(found[1]) % 8 or int(found[2]) % 8:
        raise ValueError(f"{entry!r} is not WIDTHxHEIGHT in pixels, each a multiple of 8")
    return int(found[1]), int(found[2])


def variable(name: str) -> str:
    """`SDGRPC_MAX_STEPS` for `max_steps`."""
    return PREFIX + name.upper()


def size_text(size: int) -> str:
    """`2GiB` for 2147483648, as a setting takes it: in the largest unit that leaves a whole number."""
    for unit, factor in (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size and size % factor == 0:
            return f"{size // factor}{unit}"
    return str(size)


def shown(value: object) -> str:
    """A value as a TOML file says it; nothing for one that is not set."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value if isinstance(value, bool | int | float) else str(value), ensure_ascii=False)


def sentence(error: Mapping[str, Any], flags: Mapping[str, object], names: Collection[str]) -> str:
    """`max_steps (SDGRPC_MAX_STEPS): input should be greater than or equal to 1, not 0`."""
    text = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return text
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        close = get_close_matches(name, names, n=1)
        return f"{name}: there is no such setting" + (f"; is {close[0]} meant?" if close else "")
    given = name not in flags and any(one.upper() == variable(name) for one in os.environ)
    source = f" ({variable(name)})" if given else ""
    wrong = "" if error["type"] == "value_error" else f", not {_input(error['input'])}"
    return f"{name}{source}: {text[0].lower()}{text[1:]}{wrong}"


def _input(value: object) -> str:
    """A wrong value as it was written: numbers without quotation marks, though flags are texts."""
    is_number = isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?", value)
    return str(value) if is_number else repr(value)
