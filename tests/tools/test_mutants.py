"""What is made of a session of mutants."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tools.mutants import ROOT, SOCKET, TESTS, Survivor, survivors, warm, write_config
from tools.warm_tests import ask

MUTATION = {"operator_name": "core/ReplaceAndWithOr", "start_pos": [7, 4]}


def line(outcome: str | None) -> str:
    result = outcome and {"test_outcome": outcome, "diff": "- and\n+ or"}
    return json.dumps([{"job_id": "1", "mutations": [MUTATION]}, result])


def test_only_survivors_are_listed() -> None:
    """Neither what was killed nor what was left out."""
    dump = "\n".join([line("killed"), line("survived"), line(None)])
    assert list(survivors(dump)) == [Survivor("core/ReplaceAndWithOr", 7, "- and\n+ or")]


def test_files_and_their_tests_exist(tmp_path: Path) -> None:
    """The table names what is there, and the configuration names both."""
    for module, tests in TESTS.items():
        assert all((ROOT / path).exists() for path in (module, *tests))
        assert module in write_config(tmp_path, module).read_text()


@pytest.mark.slow
def test_a_warm_process_runs_the_code_that_is_on_the_disk(tmp_path: Path) -> None:
    """Tests that pass, then the same ones after their module was changed, then changed back."""
    for part in ("tools", "pyproject.toml"):
        source = ROOT / part
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / part)
    module, test = tmp_path / "sum.py", tmp_path / "test_sum.py"
    test.write_text("from sum import add\n\ndef test_add() -> None:\n    assert add(2, 1) == 3\n")
    module.write_text("def add(a, b):\n    return a + b\n")
    with warm(tmp_path, ["test_sum.py"]):
        statuses = []
        for sign in "-+":
            module.write_text(f"def add(a, b):\n    return a {sign} b\n")
            statuses.append(ask(tmp_path / SOCKET))
    assert statuses == [1, 0]


@pytest.mark.slow
def test_tests_that_fail_unchanged_are_no_measure(tmp_path: Path) -> None:
    """Every mutant would be killed by them."""
    shutil.copytree(ROOT / "tools", tmp_path / "tools")
    (tmp_path / "test_red.py").write_text("def test_red() -> None:\n    assert False\n")
    with pytest.raises(RuntimeError, match="without any change"), warm(tmp_path, ["test_red.py"]):
        pass
