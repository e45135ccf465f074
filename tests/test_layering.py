"""The layers of docs/architecture.md, kept true by the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import sdgrpc

PACKAGE = Path(sdgrpc.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "v1")

# What each room may import of the others; `client` and `cli` stand above, `v1` is generated.
ROOMS = {
    "domain": set(),
    "errors": set(),
    "__init__": set(),
    "settings": {"errors", "settings_text"},
    "settings_text": {"errors"},
    "images": {"domain"},
    "parameters": {"domain"},
    "machine": {"errors"},
    "tensor_files": {"errors"},
    "lora": {"domain", "errors", "machine", "tensor_files"},
    "diffusion": {"domain", "errors", "images", "machine"},
    "engine": {"domain", "errors", "settings", "images", "parameters", "lora", "diffusion", "machine"},
    "api": {"domain", "errors", "settings", "images", "engine", "v1"},
    "client": {"domain", "errors", "v1"},
}
GRPC = {"grpc", "grpc_health", "grpc_reflection", "grpc_status", "google"}
SPEAKS_GRPC = {"api", "client", "v1"}
USES_TORCH = {
    "machine",
    "tensor_files",
    "lora",
    "diffusion",
    "engine.opening",
    "engine.runner",
    "engine.catalog",
}
HEAVY = {"torch", "diffusers", "transformers", "safetensors", "accelerate"}


def name_of(path: Path) -> str:
    """`engine.local` for .../sdgrpc/engine/local.py, `engine` for its __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(module: str) -> str:
    return module.partition(".")[0]


def is_below(module: str, rooms: set[str]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def imports_of(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever it does so."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layers"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_in(path: Path) -> set[str]:
    """The rooms of this package that a file imports."""
    names = {name.split(".")[1] for name in imports_of(path) if name.startswith("sdgrpc.")}
    return {name for name in names if (PACKAGE / name).exists() or (PACKAGE / f"{name}.py").exists()}


def libraries_in(path: Path) -> set[str]:
    return {room_of(name) for name in imports_of(path)}


def test_imports_are_seen_wherever_they_are(tmp_path: Path) -> None:
    """Inside functions, under TYPE_CHECKING, and of modules by their parent."""
    path = tmp_path / "module.py"
    path.write_text(
        "if TYPE_CHECKING:\n    import torch.nn as nn\n"
        "def f():\n    from sdgrpc import lora, engine\n    from grpc import aio\n"
    )
    assert libraries_in(path) == {"torch", "sdgrpc", "grpc"}
    assert rooms_in(path) == {"lora", "engine"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_down(path: Path) -> None:
    """Api -> engine -> lora, diffusion -> domain, errors; the command line and the demo see everything."""
    room = room_of(name_of(path))
    if room in ROOMS:
        assert rooms_in(path) <= ROOMS[room] | {room}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_few_know_grpc(path: Path) -> None:
    """Only the API and the client import grpc or messages."""
    if room_of(name_of(path)) not in SPEAKS_GRPC:
        assert not libraries_in(path) & GRPC
        assert "v1" not in rooms_in(path)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_few_import_torch(path: Path) -> None:
    """Only the engine's device side, lora and diffusion do."""
    if not is_below(name_of(path), USES_TORCH):
        assert not libraries_in(path) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_has_state(path: Path) -> None:
    """Module-level names are constants: no `global`, no empty containers that wait to be filled."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Global)]
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            value = node.value
            empty = (isinstance(value, ast.List | ast.Set) and not value.elts) or (
                isinstance(value, ast.Dict) and not value.keys
            )
            assert not empty, f"line {node.lineno}"


@pytest.mark.parametrize("module", sorted(set(ROOMS) - {"__init__"}))
def test_every_room_is_there(module: str) -> None:
    """The table above names rooms that exist."""
    assert (PACKAGE / module).is_dir() or (PACKAGE / f"{module}.py").is_file()


@pytest.mark.parametrize(
    "statement",
    ["import sdgrpc.client", "import sdgrpc.settings, sdgrpc.api.server", "import sdgrpc.images"],
)
def test_light_imports_stay_light(statement: str) -> None:
    """The client, and all of the server but its engine, start without torch."""
    check = f"import sys; {statement}; sys.exit(any(name in sys.modules for name in {sorted(HEAVY)}))"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)


def test_help_stays_light() -> None:
    """`sdgrpc --help` answers without torch."""
    check = (
        "import runpy, sys\n"
        "sys.argv = ['sdgrpc', '--help']\n"
        "try: runpy.run_module('sdgrpc', run_name='__main__')\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        f"sys.exit(any(name in sys.modules for name in {sorted(HEAVY)}))"
    )
    command = [sys.executable, "-c", check]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout
