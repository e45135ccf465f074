"""Change the code where a mistake costs most, one operator at a time, and list what no test misses.

`make mutants` mutates the schedulers, the rules of requests and the LoRA formulas by cosmic-ray, in a copy of
the tree, and runs each file's own tests on every mutant, in forks of a process that has torch imported
(`tools/warm_tests.py`). `--only scheduler` takes one file. What survives and why stands in docs/mutants.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.warm_tests import READY, ask

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("src", "tests", "protos", "tools", "benchmarks", "clients", "pyproject.toml", "README.md", "docs")
ALGORITHMS = "src/sdgrpc/lora/algorithms"
TESTS: Mapping[str, Sequence[str]] = {
    "src/sdgrpc/engine/scheduler.py": ["tests/engine/test_scheduler.py"],
    "src/sdgrpc/engine/models/residency.py": ["tests/engine/models/test_residency.py"],
    "src/sdgrpc/api/rules.py": ["tests/api/test_rules.py"],
    f"{ALGORITHMS}/tensors.py": ["tests/lora/algorithms"],
    f"{ALGORITHMS}/additive.py": ["tests/lora/algorithms"],
    f"{ALGORITHMS}/multiplicative.py": ["tests/lora/algorithms"],
    f"{ALGORITHMS}/dora.py": ["tests/lora/algorithms"],
    f"{ALGORITHMS}/frobenius.py": ["tests/lora/algorithms"],
}
"""Which tests must notice when a file changes."""

SKIPPED_OPERATORS = (
    "core/NumberReplacer",
    "core/RemoveDecorator",
    "core/ReplaceBinaryOperator_BitOr_.*",
)
"""Numbers stand in messages and sizes of caches, decorators make dataclasses, `|` joins types: such mutants
matter little."""

SECONDS = 120.0
SOCKET = "tests.socket"


@dataclass(frozen=True, slots=True)
class Survivor:
    """A mutant that every test let pass."""

    operator: str
    line: int
    diff: str


def write_config(folder: Path, module: str) -> Path:
    """Write what cosmic-ray needs to know to mutate one file."""
    command = f"{sys.executable} -S -E -m tools.warm_tests ask {folder / SOCKET}"
    path = folder / "mutants.toml"
    path.write_text(
        "[cosmic-ray]\n"
        f'module-path = "{module}"\n'
        f"timeout = {SECONDS}\n"
        "excluded-modules = []\n"
        f'test-command = "{command}"\n'
        "[cosmic-ray.distributor]\n"
        'name = "local"\n'
        "[cosmic-ray.filters.operators-filter]\n"
        f"exclude-operators = {json.dumps(list(SKIPPED_OPERATORS))}\n"
    )
    return path


def run(folder: Path, *command: str) -> str:
    """Run a command of cosmic-ray's in the copy and return what it printed."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run(  # noqa: S603
        [str(program), *command[1:]],
        cwd=folder,
        env=environment(folder),
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout


def environment(folder: Path) -> dict[str, str]:
    """Return the variables for working on the copy; cached bytecode could be another mutant's."""
    return {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def warm(folder: Path, tests: Sequence[str]) -> Iterator[None]:
    """Keep a process that runs the tests when it is asked; they must pass before anything is changed."""
    command = [sys.executable, "-m", "tools.warm_tests", "serve", str(folder / SOCKET), *tests]
    with subprocess.Popen(  # noqa: S603
        command,
        cwd=folder,
        env=environment(folder),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            if process.stdout is None or process.stdout.readline().strip() != READY:
                raise RuntimeError("the tests' process ended before it was asked")
            if status := ask(folder / SOCKET):
                raise RuntimeError(f"without any change the tests end with {status}: {' '.join(tests)}")
            yield
        finally:
            process.communicate()


def survivors(dump: str) -> Iterator[Survivor]:
    """Yield what survived from a session's dump: a line of JSON for each mutant."""
    for line in dump.splitlines():
        item, result = json.loads(line)
        if result is not None and result["test_outcome"] == "survived":
            (mutation,) = item["mutations"]
            yield Survivor(mutation["operator_name"], mutation["start_pos"][0], result["diff"] or "")


def mutate(module: str, tests: Sequence[str]) -> tuple[int, list[Survivor]]:
    """Mutate one file in a copy of the tree; return how many mutants there were, and those that survived."""
    with tempfile.TemporaryDirectory(prefix="sdgrpc-mutants-") as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / part)
        config, session = write_config(folder, module), folder / "session.sqlite"
        run(folder, "cosmic-ray", "init", str(config), str(session))
        run(folder, "cr-filter-operators", str(session), str(config))
        with warm(folder, tests):
            run(folder, "cosmic-ray", "exec", str(config), str(session))
        dump = run(folder, "cosmic-ray", "dump", str(session))
        tested = [line for line in dump.splitlines() if '"test_outcome": "' in line]
        return len(tested), sorted(survivors(dump), key=lambda one: one.line)


def main() -> int:
    """Run as a command; prints the survivors' diffs and a line for each file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="only files with this in their path")
    wanted = parser.parse_args().only
    lines = []
    for module, tests in TESTS.items():
        if wanted in module:
            count, alive = mutate(module, tests)
            for one in alive:
                print(f"{module}:{one.line} {one.operator}\n{one.diff}\n", flush=True)
            lines.append(f"{module}: {len(alive)} of {count} mutants survived")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
