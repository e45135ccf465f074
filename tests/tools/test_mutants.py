"""What is made of a session of mutants."""

from __future__ import annotations

import json
from pathlib import Path

from tools.mutants import ROOT, TESTS, Survivor, survivors, write_config

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
        text = write_config(tmp_path, module, tests).read_text()
        assert module in text
        assert tests[0] in text
