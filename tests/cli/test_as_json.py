"""What `--json` prints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import typer

from sdgrpc.cli import build_app
from sdgrpc.cli.as_json import plain, print_json
from sdgrpc.client import Embedding, LoraDetails, LoraFile, LoraModule, Model, ServerStatus
from sdgrpc.testing.scripted_catalog import scripted_catalog
from sdgrpc.v1 import catalog_pb2 as pb


class Colour(Enum):
    """An enum."""

    RED = "red"


@dataclass
class Record:
    """A record with everything that is not JSON by itself."""

    path: Path
    colour: Colour
    when: datetime
    parts: tuple[int, ...]


def test_records_become_objects(capsys: pytest.CaptureFixture[str]) -> None:
    """Paths, enums, times and tuples too; letters stay readable."""
    record = Record(Path("ä/b"), Colour.RED, datetime(2026, 1, 2, tzinfo=UTC), (1, 2))
    print_json([record], line=True)
    assert capsys.readouterr().out == (
        '[{"path": "ä/b", "colour": "red", "when": "2026-01-02T00:00:00+00:00", "parts": [1, 2]}]\n'
    )
    assert plain({"a": record})["a"]["parts"] == [1, 2]


@pytest.mark.parametrize(
    ("record", "message", "own"),
    [
        (LoraFile, pb.LoraFile, set()),
        (LoraModule, pb.LoraModule, set()),
        (Embedding, pb.Embedding, set()),
        (LoraDetails, pb.GetLoraResponse, {"file"}),
        (
            Model,
            pb.Model,
            {"steps", "guidance_scale", "scheduler", "guidance_rescale", "timestep_spacing"},
        ),
        (ServerStatus, pb.WatchStatusResponse, {"estimated_wait_seconds", "resident_models"}),
    ],
)
def test_the_words_are_the_contract_s(record: Any, message: Any, own: set[str]) -> None:
    """A field is called as in the message that it came from; a few stand for messages inside it."""
    assert set(record.__dataclass_fields__) - set(message.DESCRIPTOR.fields_by_name) == own


@pytest.mark.parametrize(
    "command",
    [
        ["status"],
        ["models", "served"],
        ["loras", "served"],
        ["embeddings", "served"],
        ["models", "list"],
        ["loras", "list"],
    ],
)
def test_commands_print_json_alone(run, command: list[str]) -> None:
    """Standard output is one document."""
    with scripted_catalog() as catalog:
        served = command[-1] in ("served", "status")
        result = run(*command, "--json", *(["--server", catalog.target] if served else []))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)


def test_every_command_with_results_has_it() -> None:
    """But for those whose result is a file, a server or a screen."""
    without = set()

    def walk(command, name: str) -> None:
        for key, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{name} {key}".strip())
        if not hasattr(command, "commands"):
            options = command.get_params(command.context_class(command))
            if not any("--json" in one.opts for one in options):
                without.add(name)

    walk(typer.main.get_command(build_app()), "")
    assert without == {"serve", "web", "demo", "top"}
