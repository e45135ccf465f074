"""The command line as a whole."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import sdgrpc

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
