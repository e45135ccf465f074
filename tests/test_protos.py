"""The contract's files: what `make lint` and `make descriptors` do with them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).with_name("buf")
RELEASED = ROOT / "protos/released.binpb"


def breaking(protos: Path) -> subprocess.CompletedProcess[str]:
    """Ask what `make lint` asks: whether this breaks the released contract."""
    command = [BUF, "breaking", protos, "--against", RELEASED]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contract to change."""
    return Path(shutil.copytree(ROOT / "protos", tmp_path / "protos"))


def test_the_contract_keeps_its_promises() -> None:
    """Nothing that was released is gone or means something else."""
    done = breaking(ROOT / "protos")
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("diffusion.proto", "string prompt = 3;", "string prompt = 33;"),
        ("diffusion.proto", "optional float strength = 11;", "optional double strength = 11;"),
        ("catalog.proto", "rpc ListLoras(", "rpc ListLoraFiles("),
    ],
)
def test_a_broken_promise_is_found(protos: Path, file: str, old: str, new: str) -> None:
    """A moved field, another type, a renamed call: each fails the lint, naming its file."""
    path = protos / "sdgrpc/v1" / file
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")
    done = breaking(protos)
    assert done.returncode != 0
    assert file in done.stdout


def test_an_added_field_is_fine(protos: Path) -> None:
    """The contract may grow."""
    path = protos / "sdgrpc/v1/diffusion.proto"
    text = path.read_text("utf-8")
    path.write_text(text.replace("bool strict = 6;", "bool strict = 6;\n  string note = 100;"), "utf-8")
    assert breaking(protos).returncode == 0


def test_the_descriptor_set_is_complete(tmp_path: Path) -> None:
    """A tool that has only the descriptor set knows all services and all they refer to."""
    target = tmp_path / "sdgrpc.protoset"
    command = [BUF, "build", ROOT / "protos", "--as-file-descriptor-set", "-o", f"{target}#format=binpb"]
    subprocess.run(command, check=True)
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes()).file:
        pool.Add(file)
    for service, calls in (("DiffusionService", 4), ("CatalogService", 8), ("JobService", 3)):
        assert len(pool.FindServiceByName(f"sdgrpc.v1.{service}").methods) == calls
