"""The same request and seed give the same bytes, whatever language asks."""

from __future__ import annotations

import json
import os

import pytest

from tests.clients.conftest import CLIENTS, ROOT, RunClient, missing_programs

pytestmark = pytest.mark.timeout(4800)


def test_pictures_are_equal_across_languages(run_client: RunClient) -> None:
    """Every case of the contract that draws, in every language; each asked a server process of its own."""
    required = os.environ.get("SDGRPC_REQUIRE_ALL") == "1"
    languages = [
        language
        for language, client in CLIENTS.items()
        if required or not (client.slow or missing_programs(language))
    ]
    if len(languages) < 2:
        pytest.skip("needs the toolchain of a second language")
    cases = json.loads((ROOT / "tests/contract/cases.json").read_text("utf-8"))["cases"]
    # A kept job's pictures are compared in each language with those of every other reader of it.
    making = ("call", "upscale")
    drawn = {case["name"] for case in cases if case["expect"]["outcome"] == "OK" and case["kind"] in making}
    first = run_client(languages[0]).hashes
    assert set(first) == drawn
    for language in languages[1:]:
        assert run_client(language).hashes == first, f"{language} and {languages[0]} got other pictures"
