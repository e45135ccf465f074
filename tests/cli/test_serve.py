"""`serve`'s flags; tests/e2e runs it."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from sdgrpc.cli.extras import server_extra
from sdgrpc.cli.serve import ServeOptions, given_flags
from sdgrpc.errors import SettingsError
from sdgrpc.settings import Settings


def test_every_setting_has_a_flag() -> None:
    """A new setting cannot be forgotten on the command line."""
    assert {field.name for field in dataclasses.fields(ServeOptions)} == set(Settings.model_fields)


def test_flags_reach_the_settings(run, monkeypatch, tmp_path: Path) -> None:
    """What was given as a flag wins over the environment and the file; what was not is left to them."""
    seen: list[Settings] = []

    async def fake_serve(settings: Settings, _open_engine: object) -> None:
        seen.append(settings)

    monkeypatch.setattr("sdgrpc.api.server.serve", fake_serve)
    monkeypatch.setenv("SDGRPC_QUEUE_SIZE", "5")
    monkeypatch.setenv("SDGRPC_MAX_STEPS", "50")
    (tmp_path / "server.toml").write_text("max_loras = 3\nmax_steps = 40\nbatching = true")
    flags = "--config server.toml --lora-dir . --max-steps 30 --no-batching --lora-strength-min 0"
    result = run("serve", *flags.split())
    assert result.exit_code == 0, result.output
    (settings,) = seen
    assert (settings.queue_size, settings.max_steps, settings.max_loras) == (5, 30, 3)
    assert (settings.batching, settings.lora_strength_min, settings.model) == (False, 0.0, ["embedded"])
    assert settings.lora_dirs == (Path(),)


def test_false_and_zero_are_given() -> None:
    """Only what was not said is left out."""
    flags = given_flags(ServeOptions(batching=False, drain_timeout=0.0, model=[]))
    assert flags == {"batching": False, "drain_timeout": 0.0}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "nowhere"], "error: listen: is not HOST:PORT"),
        (["--max-steps", "0"], "error: max_steps: input should be greater than or equal to 1, not 0"),
        (["--lora-dir", "none"], "error: lora_dir: none is not a folder"),
    ],
)
def test_bad_values_fail_at_the_start(run, flags: list[str], message: str) -> None:
    """A bad value is named before anything is loaded."""
    result = run("serve", *flags)
    assert (result.exit_code, result.stderr.startswith(message)) == (1, True)


def test_missing_libraries_name_the_extra() -> None:
    """Without the server's libraries the message says what to install; our own faults are not hidden."""
    with (
        pytest.raises(SettingsError, match=r'numpy_of_old is missing; .*pip install "sdgrpc\[server\]"'),
        server_extra(),
    ):
        import numpy_of_old  # noqa: F401
    assert "numpy_of_old" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match=r"sdgrpc\.none"), server_extra():
        import sdgrpc.none  # noqa: F401
