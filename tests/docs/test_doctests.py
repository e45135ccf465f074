"""Every example in a docstring gives what it says."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

import sdgrpc

PACKAGE = Path(sdgrpc.__file__).parent
EXAMPLES = sorted(
    path for path in PACKAGE.rglob("*.py") if path.parent.name != "v1" and ">>> " in path.read_text("utf-8")
)


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_there_are_examples() -> None:
    """Otherwise nothing below would run."""
    assert EXAMPLES


@pytest.mark.parametrize("module", map(module_of, EXAMPLES))
def test_examples_hold(module: str) -> None:
    """None of the module's examples fails; those that need a server of one's own say so by +SKIP."""
    failed, tried = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert failed == 0
    assert tried
