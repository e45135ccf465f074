"""The README's grpcurl commands, run by the real grpcurl."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.server import running_server
from tools import grpcurl

README = (grpcurl.ROOT / "README.md").read_text("utf-8")


def test_the_readme_shows_what_users_ask_first() -> None:
    """List, describe, health, ListLoras and a Generate with a LoRA over several lines are documented."""
    commands = grpcurl.documented(README)
    for part in (" list", " describe ", "grpc.health.v1.Health/Check", "CatalogService/ListLoras"):
        assert any(part in command for command in commands), part
    generate = next(command for command in commands if "DiffusionService/Generate" in command)
    assert "\n" in generate
    assert '"loras"' in generate


def test_long_texts_are_cut() -> None:
    """Pictures do not flood the terminal; short texts stay whole."""
    assert grpcurl.shortened('"data": "' + "A" * 500 + '", "mediaType": "image/png"') == (
        '"data": "' + "A" * 120 + '…", "mediaType": "image/png"'
    )


@pytest.fixture(scope="module")
def binary() -> Path:
    """The real grpcurl, built once."""
    if shutil.which("go") is None and not grpcurl.BINARY.exists():
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail("SDGRPC_REQUIRE_ALL=1 needs Go, to build grpcurl")
        pytest.skip("grpcurl is built with Go, and there is no `go` on the PATH")
    return grpcurl.install()


@pytest.fixture(scope="module")
def answers(binary: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, grpcurl.Answer]:
    """What each documented command printed, by its last word."""
    with running_server(tmp_path_factory.mktemp("grpcurl") / "server.log") as server:
        found = [grpcurl.ask(binary, command, server.target) for command in grpcurl.documented(README)]
    return {answer.command.split()[-1]: answer for answer in found}


@pytest.mark.timeout(1200)  # the first run builds grpcurl
def test_every_documented_command_works(answers: dict[str, grpcurl.Answer]) -> None:
    """JSON goes in and events come out, with the names and the grammar of the contract."""
    assert {name: answer.errors for name, answer in answers.items() if answer.status} == {}
    assert "sdgrpc.v1.DiffusionService" in answers["list"].output.split()
    assert "string sha256 = 2;" in answers["sdgrpc.v1.Lora"].output
    assert json.loads(answers["grpc.health.v1.Health/Check"].output) == {"status": "SERVING"}
    loras = json.loads(answers["sdgrpc.v1.CatalogService/ListLoras"].output)["loras"]
    assert "postcard" in [lora["name"] for lora in loras]
    events = _stream(answers["sdgrpc.v1.DiffusionService/Generate"].output)
    # The names are the contract's own: what Python's reflection sends holds no JSON names.
    kinds = [next(key for key in event if key not in {"request_id", "sequence"}) for event in events]
    assert kinds == ["accepted", "prepared", *["progress"] * 20, "image", "finished"]
    assert events[1]["prepared"]["loras"][0]["name"] == "postcard"


def _stream(text: str) -> list[dict]:
    """JSON values that follow each other."""
    decoder, values, rest = json.JSONDecoder(), [], text.strip()
    while rest:
        value, end = decoder.raw_decode(rest)
        values.append(value)
        rest = rest[end:].lstrip()
    return values
