"""The table of threads in docs/architecture.md is that of the code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.documents import ROOT

PACKAGE = ROOT / "src/sdgrpc"
MAKERS = {"Thread", "ThreadPoolExecutor", "Workers", "thread"}
"""What is called to make one: the library's, our pool, the supervisor's method."""
NAME = re.compile(r"sdgrpc-[a-z]+(-[a-z]+)*")


def threads_in(tree: ast.AST) -> Iterator[str]:
    """Yield the names that a file gives to threads, in calls and as defaults of parameters of makers."""
    for node in ast.walk(tree):
        given: list[ast.expr | None] = []
        if isinstance(node, ast.Call) and called(node.func) in MAKERS:
            given = [*node.args, *(word.value for word in node.keywords)]
        elif isinstance(node, ast.ClassDef) and node.name in MAKERS:
            functions = [one for one in node.body if isinstance(one, ast.FunctionDef)]
            given = [value for one in functions for value in (*one.args.defaults, *one.args.kw_defaults)]
        for value in given:
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield from [value.value] if NAME.fullmatch(value.value) else []


def called(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def made() -> dict[str, set[str]]:
    """The files that make threads of each name."""
    found: dict[str, set[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name in threads_in(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(name, set()).add(path.relative_to(PACKAGE).as_posix())
    return found


def described(page: Path) -> dict[str, set[str]]:
    """The files that the page's table says so of; processes have names with dots."""
    rows = re.findall(r"^\| (`sdgrpc-[^|]*) \| ([^|]*) \|", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {
        name: set(re.findall(r"`([^`]+)`", files))
        for names, files in rows
        for name in re.findall(r"`([^`]+)`", names)
    }


def test_every_thread_is_described() -> None:
    """No thread is missing in the table or gone from the code, and its row names the file that makes it."""
    table, code = described(ROOT / "docs/architecture.md"), made()
    assert len(code) > 15
    assert table.keys() == code.keys()
    assert not {name for name in code if not code[name] <= table[name]}


@pytest.mark.parametrize(
    "text",
    [
        "threading.Thread(target=f, name='sdgrpc-a')",
        "ThreadPoolExecutor(1, 'sdgrpc-a')",
        "class Workers:\n    def __init__(self, name='sdgrpc-a'): pass",
    ],
)
def test_threads_are_found(text: str) -> None:
    """However one is made."""
    assert list(threads_in(ast.parse(text))) == ["sdgrpc-a"]
