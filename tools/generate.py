"""Generate `src/sdgrpc/v1` from `protos/`, or with `--check` prove that it is fresh."""

from __future__ import annotations

import argparse
import filecmp
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # this is run as a file, too
from tools.compiler import protoc  # noqa: E402

PROTOS = ROOT / "protos"
PACKAGE = Path("sdgrpc/v1")


def generate(target: Path) -> None:
    """Write the modules and their type stubs for every proto below `target`/sdgrpc/v1."""
    target.mkdir(parents=True, exist_ok=True)
    sources = sorted(str(path.relative_to(PROTOS)) for path in (PROTOS / PACKAGE).glob("*.proto"))
    outputs = [f"--{plugin}_out={target}" for plugin in ("python", "grpc_python", "mypy", "mypy_grpc")]
    protoc([*outputs, *sources], protos=PROTOS)


def stale_files(fresh: Path, committed: Path) -> list[str]:
    """Return the names that differ between the two folders, or stand in one only."""
    names = {path.name for folder in (fresh, committed) for path in folder.glob("*_pb2*")}
    _, differing, missing = filecmp.cmpfiles(fresh, committed, sorted(names), shallow=False)
    return sorted([*differing, *missing])


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything is stale")
    if not parser.parse_args().check:
        generate(ROOT / "src")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder))
        stale = stale_files(Path(folder) / PACKAGE, ROOT / "src" / PACKAGE)
    if stale:
        print(f"stale generated code, run `make gen`: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
