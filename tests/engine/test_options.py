"""The engine's bounds."""

from __future__ import annotations

from dataclasses import fields

from sdgrpc.engine.options import EngineOptions, LoopOptions
from sdgrpc.settings import Settings


def test_defaults_are_the_settings() -> None:
    """Nothing that is not said is other than what the settings say."""
    assert EngineOptions.of(Settings()) == EngineOptions()


def test_each_bound_is_its_setting() -> None:
    """No bound gets another's number."""
    names = [one.name for kind in (EngineOptions, LoopOptions) for one in fields(kind)]
    numbers = {name: 70 + i for i, name in enumerate(names) if name in Settings.model_fields}
    given = {
        **numbers,
        "batching": False,
        "max_rows_per_call": [str(numbers["max_rows_per_call"]), "embedded=3"],
    }
    options = EngineOptions.of(Settings.load(None, **given))
    assert options.loop.rows_by_model == {"embedded": 3}
    assert options.loop.batching is False
    for name in numbers.keys() - {"batching"}:
        holder = options if hasattr(options, name) else options.loop
        assert getattr(holder, name) == numbers[name]
