"""The TypeScript client: its tests, its form, its stubs, its lock."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.clients.conftest import ROOT, RunClient, install_typescript, require_client, run_in
from tools.generate_clients import stale_files

FOLDER = ROOT / "clients/typescript"
pytestmark = pytest.mark.timeout(1600)


@pytest.fixture(scope="module")
def installed() -> Path:
    """Its folder, with what the lock names."""
    require_client("typescript")
    install_typescript()
    return FOLDER


def test_its_tests_pass(run_client: RunClient) -> None:
    """Typed events, errors, cut calls, and the contract's table through Envoy, by gRPC-Web."""
    done = run_client("typescript")
    assert done.returncode == 0, done.output


@pytest.mark.usefixtures("installed")
def test_it_is_formatted_and_strict() -> None:
    """Neither prettier nor the strict compiler finds anything."""
    done = run_in("typescript", ["npm", "run", "--silent", "lint"])
    assert done.returncode == 0, done.output
    options = json.loads((FOLDER / "tsconfig.json").read_text("utf-8"))["compilerOptions"]
    assert options["strict"] is True


@pytest.mark.usefixtures("installed")
def test_its_stubs_are_fresh() -> None:
    """They are what the protos give, by the plugin that the lock names."""
    assert stale_files("typescript") == []


def test_its_lock_names_no_registry() -> None:
    """Every library has its hash, and comes from wherever the reader's npm looks."""
    packages = json.loads((FOLDER / "package-lock.json").read_text("utf-8"))["packages"]
    libraries = {name: one for name, one in packages.items() if name}
    assert len(libraries) > 5
    assert all(one["integrity"].startswith("sha512-") for one in libraries.values())
    assert not any("resolved" in one for one in libraries.values())


@pytest.mark.usefixtures("installed")
def test_its_package_is_whole() -> None:
    """It holds the licence and the types, and no tests; it is named and versioned as the others are."""
    done = run_in("typescript", ["npm", "pack", "--dry-run", "--json"])
    assert done.returncode == 0, done.output
    files = {one["path"] for one in json.loads(done.output)[0]["files"]}
    assert {"LICENSE", "README.md", "dist/src/index.js", "dist/src/index.d.ts"} <= files
    assert not any("tests" in name for name in files)
    assert (FOLDER / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_the_readmes_example_is_typed(installed: Path) -> None:
    """It compiles as it stands."""
    readme = (installed / "README.md").read_text("utf-8")
    example = readme.partition("```ts\n")[2].partition("```")[0]
    program = installed / "dist/readme.mts"
    program.write_text(example.replace('"sdgrpc"', '"./src/index.js"'), "utf-8")
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    done = run_in("typescript", ["npx", "tsc", *options, str(program)])
    assert done.returncode == 0, done.output
