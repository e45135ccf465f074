"""Every promise of docs/operating.md has a test that is there."""

from __future__ import annotations

import ast
import re

from tests.docs.documents import ROOT

PAGE = ROOT / "docs/operating.md"


def names_in(path: str) -> set[str]:
    """The names of a file's test functions."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_promise_names_a_test() -> None:
    """In its last column, as file::function."""
    table = PAGE.read_text("utf-8").partition("## Promises")[2]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert rows
    for row in rows:
        named = re.fullmatch(r"`(tests/[a-z0-9_/]+\.py)::(\w+)`", row.strip("|").rpartition("|")[2].strip())
        assert named is not None, row
        assert named[2] in names_in(named[1]), row


def test_every_fault_is_promised() -> None:
    """No test that injects a fault is missing from the table."""
    page = PAGE.read_text("utf-8")
    for path in sorted((ROOT / "tests/faults").glob("test_*.py")):
        for name in names_in(f"tests/faults/{path.name}"):
            assert name in page or name == "test_the_model_can_fail", name
