"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from sdgrpc.cli.grouped import takes


@dataclass(frozen=True)
class Shared:
    """Two options."""

    names: Annotated[list[str], typer.Option("--name", help="Repeat it.")] = field(default_factory=list)
    size: Annotated[int, typer.Option(help="Pixels.")] = 3


@pytest.fixture
def seen() -> list[object]:
    return []


@pytest.fixture
def app(seen) -> typer.Typer:
    """An application of one command that takes the group between parameters of its own."""

    @takes(Shared, name="shared")
    def command(prompt: str, shared: Shared, loud: bool = False) -> None:
        """Do it."""
        seen.append((prompt, shared, loud))

    built = typer.Typer()
    built.command()(command)
    return built


def test_fields_become_options(app, seen) -> None:
    """The command gets its own parameters and the group, filled in."""
    result = CliRunner().invoke(app, ["a", "--name", "x", "--name", "y", "--size", "5", "--loud"])
    assert result.exit_code == 0, result.output
    assert seen == [("a", Shared(["x", "y"], 5), True)]


def test_defaults_are_the_group_s(app, seen) -> None:
    """What is not given is the field's default."""
    assert CliRunner().invoke(app, ["a"]).exit_code == 0
    assert seen == [("a", Shared(), False)]


def test_help_shows_the_options(app) -> None:
    """The help lists the group's options, not the group."""
    output = CliRunner().invoke(app, ["--help"]).output
    assert "--size" in output
    assert "Repeat it." in output
    assert "--shared" not in output
