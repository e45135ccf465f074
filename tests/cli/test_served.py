"""What the command line says about a running server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from sdgrpc.testing.scripted_catalog import HASH, Catalog, scripted_catalog


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with scripted_catalog() as running:
        yield running


def test_status(run, catalog) -> None:
    """The load in a line, then the models and the sets in memory."""
    result = run("status", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ready: 0 running, 0 of at most 0 waiting")
    assert "  set on : ab:0.5" in lines


def test_models(run, catalog) -> None:
    """A row for each model, with its defaults, and a line for each upscaler."""
    result = run("models", "served", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    _, row, strengths, upscaler = result.stdout.splitlines()
    assert row.split()[:2] == ["embedded", "no"]
    assert row.split()[-1] == HASH[:10]
    assert strengths == "LoRA strengths from -0.7 to 2"
    assert upscaler == "upscaler large: 4 times, ESRGAN"


def test_loras(run, catalog) -> None:
    """A row for each file of every page; one that does not fit says why."""
    result = run("loras", "served", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    rows = result.stdout.splitlines()[1:]
    assert [row.split()[0] for row in rows] == ["ink", "postcard", "sepia"]
    assert all("refused: is for SDXL" in row for row in rows)
    assert all(HASH[:12] in row for row in rows)


def test_upload(run, catalog, tmp_path) -> None:
    """A file is brought under a name; one that is not there is a line, not a traceback."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(b"content")
    result = run("loras", "upload", path, "--name", "brush", "--server", catalog.target)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("brush  ")
    missing = run("loras", "upload", tmp_path / "nothing", "--server", catalog.target)
    assert missing.exit_code == 1
    assert "No such file" in missing.stderr


def test_no_server(run) -> None:
    """Without a server the line says how to start one."""
    result = run("status", "--server", "127.0.0.1:1")
    assert result.exit_code == 1
    assert "no server answers at 127.0.0.1:1" in result.stderr
