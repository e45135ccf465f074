"""The documents, and the pieces of them that can be proved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("docs", "benchmarks", "tests/contract", "clients", "deploy")
DOCUMENTS = sorted(
    {*ROOT.glob("*.md"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))}
    - {ROOT / "CHANGELOG.md"}
    - {
        path
        for path in (ROOT / "clients").rglob("*.md")
        if "node_modules" in path.parts or "target" in path.parts
    }
)
"""Every page but the changelog, which names what is gone."""

ENDINGS = "py|md|proto|json|toml|yml|yaml|sh|png|binpb|txt|mod|rs|go|ts"
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(rf"(?:[\w.-]+/)+[\w.-]*|[\w-]+\.(?:{ENDINGS})")
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^ {4}(\S.*)$", re.MULTILINE)


def name_of(path: Path) -> str:
    """How a page is called in the names of tests."""
    return path.relative_to(ROOT).as_posix()


def code(page: Path) -> Iterator[str]:
    """Yield what stands between backticks in a line."""
    for found in _CODE.finditer(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        yield found[1]


def paths(page: Path) -> Iterator[str]:
    """Yield what looks like a path of this project, alone between backticks."""
    for text in code(page):
        if _PATH.fullmatch(text):
            yield text


def links(page: Path) -> Iterator[str]:
    """Yield the targets of links to files, as they stand there."""
    for found in _LINK.finditer(page.read_text(encoding="utf-8")):
        if "://" not in found[1] and not found[1].startswith("mailto:"):
            yield found[1]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return [body for name, body in _FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def commands(page: Path) -> Iterator[str]:
    """Yield the commands of a page, one a line: what is indented or fenced, continued lines joined."""
    text = page.read_text(encoding="utf-8")
    shell = [body for name, body in _FENCE.findall(text) if name in ("", "sh", "bash", "shell", "console")]
    lines = "\n".join([*_COMMAND.findall(_FENCE.sub("", text)), *shell])
    for line in re.sub(r"\\\n\s*", " ", lines).splitlines():
        yield re.sub(r"\s+#.*", "", line.strip().removeprefix("$ "))
