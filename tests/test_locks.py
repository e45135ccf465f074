"""locks/ names what pyproject.toml asks for, each file by its hash."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))


def asked(*extras: str, groups: tuple[str, ...] = ()) -> Iterator[Requirement]:
    """What the package, extras of it and groups ask for."""
    optional = PROJECT["project"]["optional-dependencies"]
    lines = [*PROJECT["project"]["dependencies"], *(line for extra in extras for line in optional[extra])]
    lines += [
        line for group in groups for line in PROJECT["dependency-groups"][group] if isinstance(line, str)
    ]
    for line in lines:
        requirement = Requirement(line)
        if requirement.name == PROJECT["project"]["name"]:
            yield from asked(*requirement.extras)
        else:
            yield requirement


def locked(name: str) -> dict[str, list[Version]]:
    """The versions that a lock has of each package; there may be one for each Python."""
    found: dict[str, list[Version]] = {}
    for line in (ROOT / "locks" / name).read_text("utf-8").splitlines():
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line):
            found.setdefault(canonicalize_name(match[1]), []).append(Version(match[2]))
    return found


@pytest.mark.parametrize(
    ("name", "requirements"),
    [
        ("server.txt", tuple(asked("server"))),
        ("dev.txt", tuple(asked("server", groups=("dev",)))),
        ("build.txt", tuple(map(Requirement, PROJECT["build-system"]["requires"]))),
    ],
)
def test_locks_have_what_is_asked_for(name: str, requirements: tuple[Requirement, ...]) -> None:
    """A dependency that was added or raised is locked too: `make lock` does it."""
    versions = locked(name)
    assert requirements
    for requirement in requirements:
        have = versions.get(canonicalize_name(requirement.name), [])
        assert have, f"{requirement} is not in locks/{name}: run `make lock`"
        assert all(requirement.specifier.contains(version, prereleases=True) for version in have), requirement


@pytest.mark.parametrize("name", ["server.txt", "dev.txt", "build.txt"])
def test_every_file_has_a_hash_and_no_place(name: str) -> None:
    """What is installed is what was locked, from wherever pip is told to take it."""
    text = (ROOT / "locks" / name).read_text("utf-8")
    entries = re.split(r"\n(?=\S)", text.strip())
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    assert "://" not in text
