"""The clients' own tests, each language's run once: they start real servers and go through tests/contract.

A language is an entry of CLIENTS. Without its toolchain it is skipped, or fails if SDGRPC_REQUIRE_ALL=1.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.server import REPLICAS

ROOT = Path(__file__).resolve().parents[2]
CARGO_TARGET = str(Path.home() / ".cache/sdgrpc/rust-target")  # shared by every checkout: compiled once
RUN_SECONDS = 1500  # a fresh machine downloads and compiles the libraries first


def install_typescript() -> None:
    """Have its libraries, as the lock names them, and its programs built, once for all who want them."""
    folder = ROOT / "clients/typescript"
    locked = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    stamp = folder / "node_modules/.installed"
    with (folder / ".install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp.is_file() or stamp.read_text() != locked:
            subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], cwd=folder, check=True)
            stamp.write_text(locked)
        subprocess.run(["npm", "run", "--silent", "build"], cwd=folder, check=True)


@dataclass(frozen=True)
class Client:
    """How to run a language's tests in `clients/<language>`, and the programs that takes."""

    command: Sequence[str]
    needs: Sequence[str] = ()
    before: Callable[[], None] = lambda: None
    """What is to be done first."""
    slow: bool = False
    """Compiling it takes minutes: it runs only where everything is required."""


@dataclass(frozen=True)
class ClientRun:
    """How they ended; `hashes` are the pictures' per case of the contract, as its README says."""

    returncode: int
    output: str
    hashes: Mapping[str, Sequence[str]] = field(default_factory=dict)


CLIENTS = {
    "go": Client(["go", "test", "-race", "-count=1", "./..."], needs=["go", "gcc"]),
    "rust": Client(["cargo", "test", "--locked", "--all-features"], needs=["cargo", "cc"], slow=True),
    "typescript": Client(
        ["npm", "run", "test:built"], needs=["node", "npm", "envoy"], before=install_typescript
    ),
    "python": Client([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly"]),
}

RunClient = Callable[[str], ClientRun]


def missing_programs(language: str) -> list[str]:
    """The programs that a language's tests need and that are not there."""
    path = f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"
    return [program for program in CLIENTS[language].needs if shutil.which(program, path=path) is None]


def require_client(language: str) -> None:
    """Skip the test if the language's toolchain is not there; fail if everything is required."""
    if missing := missing_programs(language):
        reason = f"the {language} client needs {', '.join(missing)}"
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail(f"SDGRPC_REQUIRE_ALL=1, but {reason}")
        pytest.skip(reason)


def run_in(language: str, command: Sequence[str], **variables: str) -> ClientRun:
    """Run a command in the language's folder; whatever it started ends with it."""
    own = {"CARGO_TARGET_DIR": CARGO_TARGET, **os.environ, "SDGRPC_PYTHON": sys.executable}
    process = subprocess.Popen(
        command,
        cwd=ROOT / "clients" / language,
        env={**own, **variables},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=RUN_SECONDS)
    except BaseException:
        os.killpg(process.pid, signal.SIGKILL)  # a server may be among its children
        process.wait()
        raise
    return ClientRun(process.returncode, output)


def with_replicas(path: Path) -> Path:
    """A program in Python's place: whatever server a client starts by it has replicas on Ray."""
    lines = (
        "#!/bin/sh",
        f'case " $* " in *" serve "*) set -- "$@" --cluster local --replicas {REPLICAS};; esac',
        f'exec "{sys.executable}" "$@"',
    )
    path.write_text("".join(f"{line}\n" for line in lines))
    path.chmod(0o755)
    return path


@pytest.fixture(scope="session")
def run_client(tmp_path_factory: pytest.TempPathFactory) -> RunClient:
    """Run a language's tests, the first time that it is asked for."""
    runs: dict[str, ClientRun] = {}

    def run(language: str) -> ClientRun:
        require_client(language)
        if language not in runs:
            CLIENTS[language].before()
            folder = tmp_path_factory.mktemp(language)
            path = folder / "hashes.json"
            variables = {"SDGRPC_CONTRACT_HASHES": str(path)}
            if REPLICAS:
                variables["SDGRPC_PYTHON"] = str(with_replicas(folder / "python"))
            done = run_in(language, CLIENTS[language].command, **variables)
            hashes = json.loads(path.read_text("utf-8")) if path.is_file() else {}
            runs[language] = ClientRun(done.returncode, done.output, hashes)
        return runs[language]

    return run
