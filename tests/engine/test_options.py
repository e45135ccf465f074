"""The engine's bounds."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.settings import Settings


def test_defaults_are_the_settings() -> None:
    """Nothing that is not said is other than what the settings say."""
    assert EngineOptions.of(Settings()) == EngineOptions()


def test_each_bound_is_its_setting(tmp_path: Path) -> None:
    """No bound gets another's number."""
    names = [one.name for kind in (EngineOptions, LoopOptions) for one in fields(kind)]
    known = [
        name
        for name in names
        if name in Settings.model_fields
        and name not in ("batching", "prefetch", "cache_dir", "next_call", "device")
    ]
    numbers = {name: 70 + i for i, name in enumerate(known)}
    tokens, cache = tmp_path / "tokens", tmp_path / "cache"
    tokens.write_text("ann: a-secret-of-ann")
    given = {
        **numbers,
        "token_file": tokens,  # without tokens there is nothing to bound by token
        "cache_dir": cache,
        "batching": False,
        "prefetch": False,
        "next_call": "oldest",
        "max_rows_per_call": [str(numbers["max_rows_per_call"]), "embedded=3"],
    }
    options = EngineOptions.of(Settings.load(None, **given))
    assert options.loop.rows_by_model == {"embedded": 3}
    assert (options.loop.batching, options.prefetch) == (False, False)
    assert options.cache_dir == cache
    for name in numbers:
        holder = options if hasattr(options, name) else options.loop
        assert getattr(holder, name) == numbers[name]
