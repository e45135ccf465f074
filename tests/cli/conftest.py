"""Fixtures: the command line in this process, and a scripted server for it."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sdgrpc.cli import build_app
from sdgrpc.testing.server import draw_script, scripted_server


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command line with some arguments, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    app = build_app()
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def server():
    with scripted_server(draw_script(steps=20)) as running:
        yield running
