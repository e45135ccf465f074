"""What the documents name exists: paths, links, commands, options, settings, calls, make targets."""

from __future__ import annotations

import re
import shlex
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer

from sdgrpc.cli import build_app
from sdgrpc.settings import Settings
from sdgrpc.settings.environment import OTHER_VARIABLES
from sdgrpc.v1 import catalog_pb2, diffusion_pb2
from tests.docs.documents import DOCUMENTS, ROOT, code, commands, links, name_of, paths

APP = typer.main.get_command(build_app())
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
BASES = (ROOT, ROOT / "src/sdgrpc", ROOT / "src", ROOT / "tests", ROOT / "clients")
ELSEWHERE = {
    "demo/",
    "build/",
    "adapter_config.json",
    "scheduler_config.json",
    "names.json",
    "owner/name",
    "styles/ink",
}
"""What is made by a command or belongs to a user's files."""
VARIABLES = OTHER_VARIABLES
"""Variables that are no settings of a server."""

each_document = pytest.mark.parametrize("page", DOCUMENTS, ids=name_of)


def exists(path: str, page: Path) -> bool:
    """Whether a path is there, seen from the page or from a place that documents speak of."""
    return any((base / path).exists() for base in (page.parent, *BASES)) or bool(
        list((ROOT / "src/sdgrpc").rglob(path.rstrip("/"))) if "/" not in path.rstrip("/") else []
    )


@each_document
def test_paths_exist(page: Path) -> None:
    """A path between backticks is a file or folder of the project."""
    named = {
        path for path in paths(page) if path not in ELSEWHERE and not path.startswith(("/", "~", ".venv/"))
    }
    assert not {path for path in named if not exists(path, page)}


@each_document
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file leads to one."""
    assert not [link for link in links(page) if not (page.parent / link).exists()]


@each_document
def test_make_targets_exist(page: Path) -> None:
    """`make X` is a target of the Makefile."""
    named = {
        word for text in (*code(page), *commands(page)) for word in re.findall(r"\bmake ([a-z-]+)", text)
    }
    assert named <= TARGETS


@each_document
def test_modules_exist(page: Path) -> None:
    """`python -m X` is a module of the project or one that is installed."""
    texts = (*code(page), *commands(page))
    named = {module for text in texts for module in re.findall(r"python3? -m ([\w.]+)", text)}
    assert not {module for module in named if find_spec(module) is None}


@each_document
def test_settings_exist(page: Path) -> None:
    """A variable SDGRPC_X is a setting, or one of the few that are not."""
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"\bSDGRPC_[A-Z0-9_]+\b", text)) - VARIABLES
    known = {f"SDGRPC_{name.upper()}" for name in Settings.model_fields}
    assert named <= known


@each_document
def test_calls_exist(page: Path) -> None:
    """`CatalogService.ListLoras`, or with a slash, is a method of the contract."""
    files = (catalog_pb2.DESCRIPTOR, diffusion_pb2.DESCRIPTOR)
    services = {name: one for file in files for name, one in file.services_by_name.items()}
    text = page.read_text(encoding="utf-8")
    for service, method in re.findall(r"\b(\w+Service)[./]([A-Z]\w+)", text):
        if service in services:
            assert method in services[service].methods_by_name


def sdgrpc_words(line: str) -> list[str] | None:
    """Return what follows `sdgrpc` in a command; None where it is another."""
    try:
        words = shlex.split(line.replace("…", "X"))
    except ValueError:
        return None
    return words[1:] if words and Path(words[0]).name == "sdgrpc" else None


@each_document
def test_commands_and_their_options_exist(page: Path) -> None:
    """`sdgrpc X --y` is a command with that option, in running text too."""
    for line in (*code(page), *commands(page)):
        words = sdgrpc_words(line)
        if words is None:
            continue
        command: Any = APP
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            word = words.pop(0)
            if word.isupper() or word == "X":
                break
            assert word in command.commands, line
            command = command.commands[word]
        parameters = command.get_params(command.context_class(command))
        known = {option for one in parameters for option in (*one.opts, *one.secondary_opts)}
        used = {word.partition("=")[0] for word in words if re.fullmatch(r"--?[a-z][\w-]*(=.*)?", word)}
        assert used <= known | {"--help", "-h", "--version"}, line


def test_a_wrong_page_is_found(tmp_path: Path) -> None:
    """The searches above see what a page names."""
    page = tmp_path / "page.md"
    page.write_text(
        "See `lora/none.py` and [this](none.md).\n\n    make nothing\n    sdgrpc nothing --never  # why\n"
    )
    assert list(paths(page)) == ["lora/none.py"]
    assert list(links(page)) == ["none.md"]
    assert list(commands(page)) == ["make nothing", "sdgrpc nothing --never"]
    assert sdgrpc_words("sdgrpc nothing --never") == ["nothing", "--never"]
    assert not exists("lora/none.py", page)
    assert exists("fusing/cache.py", page) is exists("lora/fusing/none.py", page) is False
