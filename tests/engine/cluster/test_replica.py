"""What a replica's process is opened with, and what it says of itself."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sdgrpc.domain import EngineStatus, ResidentSet
from sdgrpc.engine import opening
from sdgrpc.engine.cluster.messages.carrying import Carried
from sdgrpc.engine.cluster.replica import Report, opened
from sdgrpc.errors import ModelError
from sdgrpc.logs import configured
from sdgrpc.machine import allocator
from sdgrpc.settings import Settings

SET = ResidentSet(set_id="a", model="m", size_bytes=40, in_use=False, loras=())
EMPTY = EngineStatus(True, 0, 0, 0.0, 0.0, 0, 0, 0, 0, lora_set_budget_bytes=100)


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log and its memory are the tests' own."""
    monkeypatch.setattr(configured, "configure_logging", lambda *_: None)
    monkeypatch.setattr(allocator, "keep_freed_memory", lambda: None)
    monkeypatch.setattr(allocator, "libraries_kept", nullcontext)


def test_it_refuses_nothing_that_the_door_let_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The door keeps the bound of each caller's queue; how many are drawn at a time is each engine's."""
    given: list[Settings] = []
    monkeypatch.setattr(opening, "open_engine", lambda settings, **_: given.append(settings))
    tokens = tmp_path / "tokens"
    tokens.write_text("ann: secret-of-ann\n")
    bounds: dict[str, Any] = {"max_queued_jobs_per_token": 2, "max_running_jobs_per_token": 1}
    opened(Settings(token_file=tokens, upload_dir=tmp_path / "up", **bounds), "replica-3")
    (settings,) = given
    assert settings.max_queued_jobs_per_token is None
    assert settings.max_running_jobs_per_token == 1
    assert settings.upload_dir == tmp_path / "up" / "replica-3"


def test_what_keeps_it_from_opening_is_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not an exception of the process, whose traceback would travel."""

    def failing(settings: Settings, **keywords: Any) -> None:
        del settings, keywords
        raise ModelError("no such folder")

    monkeypatch.setattr(opening, "open_engine", failing)
    answer = opened(Settings(), "replica-0")
    assert isinstance(answer, Carried)
    assert (type(answer.error()), str(answer.error())) == (ModelError, "no such folder")


@pytest.mark.parametrize(("held", "full"), [(60, False), (61, True), (100, True)])
def test_it_is_full_once_a_set_as_large_as_its_largest_has_no_room(held: int, full: bool) -> None:
    """Within its budget of 100 bytes."""
    status = replace(EMPTY, lora_set_bytes=held, resident_sets=(replace(SET, size_bytes=10), SET))
    assert Report("", 1, status, ()).is_full is full


def test_one_without_sets_has_room() -> None:
    """Also before it fused any."""
    assert not Report("", 1, EMPTY, ()).is_full
