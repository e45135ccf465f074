"""Generate the stubs of clients/python, go and typescript from `protos/`, or with `--check` prove them fresh.

Go's plugins are those that clients/go/tools/go.mod pins, built by the Go toolchain; TypeScript's is that of
clients/typescript/package-lock.json, installed by npm. Rust's crate generates its own.
"""

from __future__ import annotations

import argparse
import filecmp
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from google.rpc import error_details_pb2

from tools.compiler import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
CLIENTS = ROOT / "clients"
SOURCES = sorted(str(path.relative_to(PROTOS)) for path in PROTOS.glob("sdgrpc/v1/*.proto"))
GO_MODULE = "example.com/sdgrpc"
GO_PLUGINS = ("google.golang.org/protobuf/cmd/protoc-gen-go", "google.golang.org/grpc/cmd/protoc-gen-go-grpc")
SUFFIXES = ("_pb2.py", "_pb2_grpc.py", ".pb.go", "_pb.ts")
ELSEWHERE = {"node_modules", "dist"}
"""Folders with other people's stubs, and copies of ours."""
DETAILS = "google/rpc/error_details.proto"
"""What errors are told in; the other languages' libraries have it."""


def generate_python(target: Path) -> None:
    """Write the modules below `target`/sdgrpc/v1."""
    protoc([f"--python_out={target}", f"--grpc_python_out={target}", *SOURCES], protos=PROTOS)


def generate_go(target: Path) -> None:
    """Write the package `target`/v1; needs `go` in the PATH."""
    with tempfile.TemporaryDirectory() as folder:
        build = ["go", "build", "-o", f"{folder}/", *GO_PLUGINS]
        subprocess.run(build, check=True, cwd=CLIENTS / "go/tools")  # noqa: S603 - the pinned plugins
        options = [f"module={GO_MODULE}", *(f"M{source}={GO_MODULE}/v1;sdgrpcv1" for source in SOURCES)]
        arguments = [
            f"--plugin=protoc-gen-go={folder}/protoc-gen-go",
            f"--plugin=protoc-gen-go-grpc={folder}/protoc-gen-go-grpc",
            f"--go_out={target}",
            f"--go-grpc_out={target}",
            *(f"--{plugin}_opt={option}" for plugin in ("go", "go-grpc") for option in options),
        ]
        protoc([*arguments, *SOURCES], protos=PROTOS)


def generate_typescript(target: Path) -> None:
    """Write the modules below `target`/src/gen; needs `npm` in the PATH."""
    folder, output = CLIENTS / "typescript", target / "src/gen"
    plugin = folder / "node_modules/.bin/protoc-gen-es"
    if not plugin.exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund", "--silent"], check=True, cwd=folder)  # noqa: S607
    output.mkdir(parents=True, exist_ok=True)
    arguments = [
        f"--plugin=protoc-gen-es={plugin}",
        f"--es_out={output}",
        "--es_opt=target=ts,import_extension=js",
    ]
    common = Path(error_details_pb2.__file__).parents[2]
    protoc([*arguments, f"-I{common}", *SOURCES, DETAILS], protos=PROTOS)


GENERATORS: dict[str, Callable[[Path], None]] = {
    "python": generate_python,
    "go": generate_go,
    "typescript": generate_typescript,
}


def stale_files(language: str) -> Sequence[str]:
    """Return the stubs of a language that are not what the protos give, relative to its folder."""
    with tempfile.TemporaryDirectory() as folder:
        GENERATORS[language](Path(folder))
        trees = [Path(folder), CLIENTS / language]
        names = {
            str(path.relative_to(tree))
            for tree in trees
            for path in tree.rglob("*")
            if path.name.endswith(SUFFIXES) and not ELSEWHERE & set(path.relative_to(tree).parts)
        }
        _, differing, missing = filecmp.cmpfiles(trees[0], trees[1], sorted(names), shallow=False)
    return sorted([*differing, *missing])


def main() -> int:
    """Run as a command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("languages", nargs="*", choices=[*GENERATORS, []], help="all of them without any")
    parser.add_argument("--check", action="store_true", help="change nothing; fail if anything is stale")
    arguments = parser.parse_args()
    languages = arguments.languages or list(GENERATORS)
    if not arguments.check:
        for language in languages:
            GENERATORS[language](CLIENTS / language)
        return 0
    stale = [f"clients/{language}/{name}" for language in languages for name in stale_files(language)]
    if stale:
        print(f"stale stubs, run `make gen`: {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
