"""The Rust client: its tests, its form, its generated code. A fresh machine compiles for minutes first."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.clients.conftest import ClientRun, RunClient, require_client, run_in

CLIPPY = ("clippy", "--locked")
DENY_WARNINGS = ("--", "-D", "warnings")
REQUIRED = os.environ.get("SDGRPC_REQUIRE_ALL") == "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(4800),
    pytest.mark.skipif(not REQUIRED, reason="compiles for minutes: SDGRPC_REQUIRE_ALL=1 runs it"),
]


def cargo(arguments: Sequence[str]) -> ClientRun:
    """A command of cargo in the crate, with the crates that Cargo.lock names."""
    require_client("rust")
    return run_in("rust", ["cargo", *arguments])


def test_its_tests_pass(run_client: RunClient) -> None:
    """Typed events, errors, deadlines, and the contract's table against a real server."""
    done = run_client("rust")
    assert done.returncode == 0, done.output


def test_it_is_formatted_and_linted() -> None:
    """Neither rustfmt nor clippy finds anything."""
    formatted = cargo(["fmt", "--all", "--check"])
    assert formatted.returncode == 0, formatted.output
    linted = cargo([*CLIPPY, "--workspace", "--all-targets", "--all-features", *DENY_WARNINGS])
    assert linted.returncode == 0, linted.output


def test_it_builds_without_tls() -> None:
    """The default features suffice, without a warning."""
    built = cargo([*CLIPPY, "--lib", *DENY_WARNINGS])
    assert built.returncode == 0, built.output


def test_its_generated_code_is_fresh() -> None:
    """It is what the protos give."""
    done = cargo(["run", "--locked", "--quiet", "-p", "codegen", "--", "--check"])
    assert done.returncode == 0, done.output


def test_its_documentation_has_no_warnings() -> None:
    """No link leads nowhere, with TLS and without."""
    for features in ([], ["--all-features"]):
        command = ["cargo", "doc", "--locked", "--no-deps", "-p", "sdgrpc", *features]
        done = run_in("rust", command, RUSTDOCFLAGS="-Dwarnings")
        assert done.returncode == 0, done.output


def test_its_package_is_whole() -> None:
    """It holds the licence, and nothing but the missing repository is warned of."""
    done = cargo(["package", "--locked", "--list", "--allow-dirty", "-p", "sdgrpc"])
    assert done.returncode == 0, done.output
    assert {"LICENSE", "README.md", "src/lib.rs"} <= set(done.output.splitlines())
    warned = [line for line in done.output.splitlines() if line.startswith("warning")]
    assert warned == ["warning: manifest has no documentation, homepage or repository"]
    root = Path(__file__).resolve().parents[2]
    assert (root / "clients/rust/LICENSE").read_bytes() == (root / "LICENSE").read_bytes()
