"""Environments of the peers: each its own, with pinned packages, made by uv where it is not there yet.

torch is too large to have four times: environments that need it see the running one's packages behind their
own. What they pin is theirs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Environment(NamedTuple):
    """Pinned packages, and whether the running environment's packages are seen behind them."""

    packages: tuple[str, ...]
    sees_torch: bool = True


ENVIRONMENTS: Mapping[str, Environment] = {
    "diffusers": Environment(
        ("diffusers==0.42.1", "peft==0.21.2", "transformers==5.24.0", "accelerate==1.15.0", "safetensors")
    ),
    "openvino": Environment(
        ("openvino==2026.4.1", "openvino-genai==2026.4.1.0", "openvino-tokenizers==2026.4.1.0")
    ),
    "sdcpp": Environment(("stable-diffusion-cpp-python==0.4.7",), sees_torch=False),
}


def python_of(name: str, cache: Path) -> str:
    """Return the interpreter of an environment, which is made if it is missing or pins something else.

    Raises:
        RuntimeError: uv is not installed, or could not install the packages.

    """
    environment, folder = ENVIRONMENTS[name], cache / "environments" / name
    python, written = folder / "bin" / "python", folder / "packages.txt"
    pins = "\n".join(environment.packages)
    if not written.exists() or written.read_text(encoding="utf-8") != pins:
        _make(folder, python, environment)
        written.write_text(pins, encoding="utf-8")
    return str(python)


def _make(folder: Path, python: Path, environment: Environment) -> None:
    uv = shutil.which("uv") or shutil.which("uv", path=str(Path(sys.executable).parent))
    if uv is None:
        raise RuntimeError("uv makes the peers' environments: install it, `pip install uv`")
    _run([uv, "venv", "-q", "--clear", "--python", sys.executable, str(folder)])
    # torch, which diffusers' packages depend on, is the running environment's.
    alone = ["--no-deps"] if environment.packages[0].startswith("diffusers") else []
    _run([uv, "pip", "install", "-q", *alone, "--python", str(python), *environment.packages])
    if environment.sees_torch:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        seen = folder / "lib" / version / "site-packages" / "running.pth"
        seen.write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")


def surroundings(root: Path) -> dict[str, str]:
    """Return the variables of a peer's process: ours, with this repository to import from."""
    return os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'src'}"}
