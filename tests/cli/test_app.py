"""The command line as a whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

import sdgrpc
from sdgrpc.cli import build_app
from sdgrpc.testing.server import draw_script, scripted_server

EVERY_COMMAND = [
    [],
    ["serve"],
    ["demo"],
    ["generate"],
    ["transform"],
    ["inpaint"],
    ["health"],
    ["status"],
    ["loras", "served"],
    ["loras", "upload"],
    ["models", "served"],
    ["loras"],
    ["loras", "list"],
    ["loras", "inspect"],
    ["models"],
    ["models", "list"],
]


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_help(run, command: list[str]) -> None:
    """Every command explains itself."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Usage:" in result.output


def test_version(run) -> None:
    """The version is the package's."""
    assert run("--version").output == f"sdgrpc {sdgrpc.__version__}\n"


def test_help_is_light() -> None:
    """Help, for every command, comes without torch; but for `serve`'s own without the server's libraries."""
    code = (
        "import json, sys\n"
        "from sdgrpc.cli import build_app\n"
        "for command in json.loads(sys.argv[1]):\n"
        "    build_app()([*command, '--help'], standalone_mode=False)\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    light = [one for one in EVERY_COMMAND if one != ["serve"]]
    command = [sys.executable, "-c", code, json.dumps(light)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert (
        not {"torch", "numpy", "diffusers", "transformers", "safetensors", "pydantic_settings", "PIL"}
        & loaded
    )


def test_module_is_the_command() -> None:
    """`python -m sdgrpc` works without the console script."""
    done = subprocess.run(
        [sys.executable, "-m", "sdgrpc", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"sdgrpc {sdgrpc.__version__}\n"


@pytest.mark.parametrize("command", EVERY_COMMAND, ids=" ".join)
def test_short_help(run, command: list[str]) -> None:
    """`-h` is `--help`."""
    assert run(*command, "-h").output == run(*command, "--help").output


def test_narrow_help() -> None:
    """In 60 columns no line is longer, and nothing is cut from an option's name."""
    for command in EVERY_COMMAND:
        shown = CliRunner(env={"COLUMNS": "60"}).invoke(build_app(), [*command, "-h"])
        assert max(map(len, shown.output.splitlines())) <= 60, command


def test_completion_is_offered(run) -> None:
    """For the shell that is used, with the words of an option that has some."""
    assert "--install-completion" in run("--help").output
    done = subprocess.run(
        [sys.executable, "-m", "sdgrpc"],
        capture_output=True,
        text=True,
        check=False,
        env={
            **os.environ,
            "_SDGRPC_COMPLETE": "complete_bash",
            "_PYTHON _M SDGRPC_COMPLETE": "complete_bash",  # as the module is called, not the script
            "COMP_WORDS": "sdgrpc serve --dtype b",
            "COMP_CWORD": "3",
        },
    )
    assert "bfloat16" in done.stdout


def test_libraries_log_nothing_raw(tmp_path: Path) -> None:
    """A handshake that fails is one line of ours, and none of grpc's core."""
    with scripted_server(draw_script()) as server:
        command = [sys.executable, "-m", "sdgrpc", "models", "served", "--tls", "--server", server.target]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("error: no server answers at")


def test_nothing_is_said_beside_results(tmp_path: Path) -> None:
    """Commands that import the model libraries print what they are for and nothing else."""
    for command in (["models", "list"], ["loras", "list"]):
        done = subprocess.run(
            [sys.executable, "-m", "sdgrpc", *command],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
        )
        assert done.stderr == ""
