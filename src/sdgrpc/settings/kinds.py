"""The types that settings have: what is checked of one value, and how it is named in help (`Metavar`)."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, ByteSize, Field, TypeAdapter
from pydantic_settings import NoDecode

from sdgrpc.settings.text import model_entry, replica_range, rows_entry, size_entry, split, vae_entry

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

UNIX = "unix:"

_BYTES = TypeAdapter(ByteSize)


@dataclass(frozen=True, slots=True)
class Metavar:
    """What stands for a value in help: `--listen HOST:PORT`."""

    text: str


@dataclass(frozen=True, slots=True)
class Unset:
    """What it means that a setting is not given."""

    text: str


def _bytes(value: object) -> object:
    """`2 GiB` as a number; numbers as they are."""
    return int(_BYTES.validate_python(value)) if isinstance(value, str) else value


def _address(value: str) -> str:
    if value.startswith(UNIX):
        path = Path(value.removeprefix(UNIX))
        if not path.is_absolute() or not path.name or ".." in path.parts:
            raise ValueError(f"{value!r} is not unix:/FOLDER/NAME")
        return f"{UNIX}{path}"
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535 or (":" in host and host[0] != "["):
        raise ValueError("is not HOST:PORT, such as 127.0.0.1:50051 or [::1]:50051")
    return value


def _plain_address(value: str) -> str:
    if value.startswith(UNIX):
        raise ValueError("is not HOST:PORT, such as 127.0.0.1:9464")
    return _address(value)


def _url(value: str) -> str:
    found = re.fullmatch(r"https?://(\[[0-9A-Fa-f:.]+\]|[^\s/@:]+)(:(?P<port>\d+))?(/\S*)?", value)
    if found is None or not 0 < int(found["port"] or 1) <= 65535:
        raise ValueError("is not http://HOST:PORT or https://HOST:PORT")
    return value


def _device(value: str) -> str:
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", value):
        raise ValueError(f"{value!r} is not auto, cpu, mps, cuda or cuda:NUMBER")
    return value


def _file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError(f"{value} is not a file")
    return value


def _folder(value: Path) -> Path:
    if not value.is_dir():
        raise ValueError(f"{value} is not a folder")
    return value


def _split_models(value: object) -> object:
    return split(value, ",")


def _split_folders(value: object) -> object:
    return split(value, os.pathsep)


def _split_rows(value: object) -> object:
    parts = split(value, ",")
    listed = parts if isinstance(parts, list) else [parts]
    return [str(part) if isinstance(part, int) else part for part in listed]


def _models(value: list[str]) -> list[str]:
    names = [model_entry(entry)[0] for entry in value]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two models are called {', '.join(repeated)}; write NAME=SOURCE")
    return value


def _rows(value: list[str]) -> list[str]:
    names = [rows_entry(entry)[0] for entry in value]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{repeated[0] or 'the number for every model'} is given twice")
    return value


def _once_each(value: list[str]) -> list[str]:
    names = [vae_entry(entry)[0] for entry in value]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{repeated[0]} is given twice")
    return value


def _replicas(value: str) -> str:
    replica_range(value)
    return value


def _sizes(value: list[str]) -> list[str]:
    return [f"{width}x{height}" for width, height in map(size_entry, value)]


def _vaes(value: list[str]) -> list[str]:
    _once_each(value)
    for _, place in map(vae_entry, value):
        if not place.exists():
            raise ValueError(f"{place} is no folder or file")
    return value


def _upscalers(value: list[str]) -> list[str]:
    _once_each(value)
    for name, place in map(vae_entry, value):
        if name.lower() in ("pixel", "lanczos") or name.lower().startswith("latent"):
            raise ValueError(f"{name!r} is how pictures are enlarged without an upscaler; name it otherwise")
        if ":" in name or not name.isprintable():
            raise ValueError(f"{name!r} has a colon or a sign that cannot be printed in its name")
        if not place.is_file():
            raise ValueError(f"{place} is no file")
    return value


Count = Annotated[int, Field(ge=1), Metavar("N")]
CountOrNone = Annotated[int, Field(ge=0), Metavar("N")]
Side = Annotated[int, Field(ge=64), Metavar("PIXELS")]
Area = Annotated[int, Field(ge=64 * 64), Metavar("PIXELS")]
Bytes = Annotated[int, BeforeValidator(_bytes), Field(ge=1), Metavar("BYTES")]
BytesOrNone = Annotated[int, BeforeValidator(_bytes), Field(ge=0), Metavar("BYTES")]
Seconds = Annotated[float, Field(ge=0), Metavar("SECONDS")]
Period = Annotated[float, Field(ge=0.1), Metavar("SECONDS")]
Factor = Annotated[float, Field(ge=1), Metavar("X")]
Strength = Annotated[float, Metavar("X")]
Address = Annotated[str, AfterValidator(_address), Metavar("HOST:PORT")]
Url = Annotated[str, AfterValidator(_url), Metavar("URL")]
PlainAddress = Annotated[str, AfterValidator(_plain_address), Metavar("HOST:PORT")]
Replicas = Annotated[str, AfterValidator(_replicas), Metavar("N|MIN:MAX")]
Device = Annotated[str, AfterValidator(_device), Metavar("auto|cpu|mps|cuda|cuda:N")]
File = Annotated[Path, AfterValidator(_file), Metavar("FILE")]
Folder = Annotated[Path, Metavar("FOLDER")]
ExistingFolder = Annotated[Path, AfterValidator(_folder), Metavar("FOLDER")]
ExistingFolders = Annotated[
    list[Annotated[Path, AfterValidator(_folder)]],
    NoDecode,
    BeforeValidator(_split_folders),
    Metavar("FOLDER"),
]
Models = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_models),
    AfterValidator(_models),
    Field(min_length=1),
    Metavar("[NAME=]SOURCE"),
]
Vaes = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_models),
    AfterValidator(_vaes),
    Metavar("NAME=PATH"),
]
TinyVaes = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_models),
    AfterValidator(_once_each),
    Metavar("NAME=SOURCE"),
]
Upscalers = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_models),
    AfterValidator(_upscalers),
    Metavar("NAME=PATH"),
]
Sizes = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_rows),
    AfterValidator(_sizes),
    Field(min_length=1),
    Metavar("WIDTHxHEIGHT"),
]
Rows = Annotated[
    list[str],
    NoDecode,
    BeforeValidator(_split_rows),
    AfterValidator(_rows),
    Field(min_length=1),
    Metavar("[NAME=]N"),
]
