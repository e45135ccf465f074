"""The rooms of docs/architecture.md, kept true by the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import sdgrpc

PACKAGE = Path(sdgrpc.__file__).parent
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent.name != "v1")

GROUND = {"domain", "errors", "embedded", "regular_files", "machine", "tensor_files"}
"""What every room of the engine stands on."""
PUBLIC = {"__init__", "__main__"}
"""The package's own name and version, and its command line: in no room."""

# What each room may import of the others. A room is a module or a folder of the package; `lora` and
# `diffusion` have rooms of their own, in the order of a file's life.
ROOMS: Mapping[str, set[str]] = {
    "domain": set(),
    "errors": set(),
    "embedded": set(),
    "regular_files": set(),
    "machine": {"errors", "domain"},
    "tensor_files": {"errors", "domain"},
    "settings": {"errors", "embedded", "regular_files"},
    "images": {"domain"},
    "prompting": set(),
    "parameters": {"domain", "prompting"},
    "lora": GROUND,
    "lora.files": GROUND,
    "lora.algorithms": GROUND,
    "lora.headers": GROUND,
    "lora.dialects": {*GROUND, "lora.headers", "lora.algorithms", "lora.files"},
    "lora.bases": {*GROUND, "lora.dialects", "lora.headers", "lora.algorithms", "lora.files"},
    "lora.store": {*GROUND, "lora.bases", "lora.dialects", "lora.files"},
    "lora.fusing": {
        *GROUND,
        "lora.headers",
        "lora.store",
        "lora.bases",
        "lora.dialects",
        "lora.algorithms",
    },
    "lora.embeddings": {*GROUND, "lora.store", "lora.bases", "lora.dialects", "lora.files"},
    "lora.resident": {*GROUND, "lora.bases", "lora.fusing"},
    "lora.describing": {
        *GROUND,
        "lora.headers",
        "lora.fusing",
        "lora.store",
        "lora.bases",
        "lora.dialects",
        "lora.files",
    },
    "diffusion": GROUND,
    "diffusion.model": {*GROUND},
    "diffusion.prompts": {*GROUND, "diffusion.model"},
    "diffusion.pictures": {*GROUND, "images", "diffusion.model"},
    "diffusion.compiling": GROUND,
    "diffusion.upscaling": {*GROUND, "images"},
    "diffusion.sampling": {
        *GROUND,
        "images",
        "diffusion.compiling",
        "diffusion.model",
        "diffusion.prompts",
        "diffusion.pictures",
    },
    "diffusion.checkpoints": {
        *GROUND,
        "diffusion.model",
        "diffusion.sampling",
        "diffusion.pictures",
    },
    "engine.cluster.routing": set(),
    "engine.cluster.messages": {"domain", "errors", "engine.observing"},
    "engine.cluster": {*GROUND, "settings", "logs", "engine"},
    "engine": {*GROUND, "settings", "images", "parameters", "prompting", "lora", "diffusion"},
    "api.access": {"errors", "settings"},
    "api.calls": {"domain", "engine.observing", "api.access", "v1"},
    "api": {"domain", "errors", "embedded", "settings", "images", "prompting", "machine", "engine", "v1"},
    "logs": set(),
    "metrics": {"domain", "errors", "settings", "engine", "api"},
    "traces": {"errors", "domain", "engine", "api"},
    "client": {"domain", "errors", "v1"},
    "web": {"client", "errors", "parameters"},
    "testing": {"v1"},
    "terminal": {"client"},
    "demo": {*GROUND, "settings", "images", "client", "terminal"},
    "cli": {
        *GROUND,
        "settings",
        "images",
        "prompting",
        "parameters",
        "client",
        "terminal",
        "demo",
        "logs",
        "web",
        "metrics",
        "traces",
        "api",
        "engine",
        "lora",
        "diffusion",
    },
}
LONG = 250
"""Lines of a file."""
FULL, FULL_ROOM = 16, 12
"""Files in any folder, and in a room of `lora` and `diffusion`."""
GRPC = {"grpc", "grpc_channelz", "grpc_health", "grpc_reflection", "grpc_status", "google"}
SPEAKS_GRPC = {"api", "client", "testing", "v1"}
USES_TORCH = {
    "machine",
    "tensor_files",
    "lora",
    "diffusion",
    "engine.opening",
    "engine.runner",
    "engine.work",
    "engine.lora_calls",
    "engine.models.served_model",
    "engine.pictures.previews",
}
HEAVY = {"torch", "spandrel", "diffusers", "transformers", "safetensors", "accelerate"}


def name_of(path: Path) -> str:
    """`engine.local` for .../sdgrpc/engine/local.py, `engine` for its __init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def room_of(module: str) -> str:
    """The smallest room that a module is in; nothing where it is in none."""
    while module and module not in ROOMS:
        module = module.rpartition(".")[0]
    return module


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


def is_module(name: str) -> bool:
    """Whether `lora.files` or `lora.files.reading` is a folder or a file of the package."""
    path = PACKAGE.joinpath(*name.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def modules_in(path: Path) -> set[str]:
    """The modules of this package that a file imports, without the package's name."""
    names = {name.removeprefix("sdgrpc.") for name in imports_of(path) if name.startswith("sdgrpc.")}
    return {name for name in names if is_module(name)}


def rooms_in(path: Path) -> set[str]:
    """The outer rooms of this package that a file imports."""
    return {outer(name) for name in modules_in(path)}


def outer(module: str) -> str:
    return module.partition(".")[0]


def libraries_in(path: Path) -> set[str]:
    return {outer(name) for name in imports_of(path)}


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A way through the graph that comes back to where it began; empty where there is none."""
    done: set[str] = set()

    def walk(node: str, way: list[str]) -> list[str]:
        if node in way:
            return [*way[way.index(node) :], node]
        if node in done:
            return []
        for target in sorted(graph.get(node, ())):
            if found := walk(target, [*way, node]):
                return found
        done.add(node)
        return []

    for node in sorted(graph):
        if found := walk(node, []):
            return found
    return []


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
def test_every_file_is_in_a_room(path: Path) -> None:
    """A new file is in a room of the table, and not beside the rooms of `lora` and `diffusion`."""
    module = name_of(path)
    assert module in PUBLIC or room_of(module)
    if outer(module) in ("lora", "diffusion"):
        assert room_of(module) != outer(module) or module == outer(module)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_arrows_point_down(path: Path) -> None:
    """Each room imports what the table allows."""
    room = room_of(name_of(path))
    if not room:
        return
    allowed = ROOMS[room] | {room}
    strangers = {
        module
        for module in modules_in(path)
        if not is_below(module, allowed) and not any(one.startswith(f"{module}.") for one in allowed)
    }
    assert not strangers


def test_there_are_no_circles() -> None:
    """Neither among files nor among rooms."""
    files = {name_of(path): without_folders(modules_in(path)) - {name_of(path)} for path in MODULES}
    assert not circle(files)
    rooms: dict[str, set[str]] = {}
    for name, targets in files.items():
        room = room_of(name)
        rooms.setdefault(room, set()).update({room_of(one) for one in targets} - {room, ""})
    assert not circle(rooms)


def without_folders(modules: set[str]) -> set[str]:
    """Leave `lora.files` out where `from sdgrpc.lora.files import reading` names a file of it."""
    return {one for one in modules if not any(other.startswith(f"{one}.") for other in modules)}


def test_a_circle_is_found() -> None:
    """The search for circles can fail."""
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert circle({"a": {"b", "c"}, "b": {"c"}}) == []


@pytest.mark.parametrize(
    "folder",
    sorted({path.parent for path in MODULES}),
    ids=lambda folder: folder.relative_to(PACKAGE).as_posix(),
)
def test_rooms_are_small(folder: Path) -> None:
    """At most 12 files in a room of `lora` and `diffusion`, 16 in any folder."""
    files = [path for path in folder.glob("*.py") if path.name != "__init__.py"]
    inner = folder.parent.name in ("lora", "diffusion")
    assert len(files) <= (FULL_ROOM if inner else FULL)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    """At most 250 lines; a longer file is about two things, and is split between them."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONG


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_few_know_grpc(path: Path) -> None:
    """Only the API and the client import grpc or messages."""
    if outer(name_of(path)) not in SPEAKS_GRPC:
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


@pytest.mark.parametrize("module", sorted(ROOMS))
def test_every_room_is_there(module: str) -> None:
    """The table above names rooms that exist."""
    assert is_module(module)


@pytest.mark.parametrize(
    "statement",
    [
        "import sdgrpc.client",
        "import sdgrpc.settings, sdgrpc.api.server",
        "import sdgrpc.images",
        "import sdgrpc.web",
    ],
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
