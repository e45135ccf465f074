"""`serve`'s flags; tests/e2e runs it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sdgrpc.cli import build_app
from sdgrpc.cli.failures import server_extra
from sdgrpc.errors import SettingsError
from sdgrpc.settings import Settings, described_settings


@pytest.fixture(scope="module")
def page() -> str:
    """`serve --help`, as wide as it likes."""
    return CliRunner(env={"COLUMNS": "300"}).invoke(build_app(), ["serve", "--help"]).output


@pytest.mark.parametrize("setting", described_settings(), ids=lambda one: one.name)
def test_every_setting_has_a_flag(page, setting) -> None:
    """With its description, what its value is and its default, or what it means without one."""
    (row,) = [line for line in page.splitlines() if re.search(rf"{setting.flag.partition('/')[0]}\s", line)]
    assert all(flag in row for flag in setting.flag.split("/"))
    assert setting.description in row
    assert setting.metavar in row
    default = setting.default
    shown = ", ".join(default) if isinstance(default, tuple) else default
    if isinstance(default, bool):
        shown = setting.flag.split("/")[0 if default else 1].removeprefix("--")
    assert f"[default: {shown if default is not None else f'({setting.unset})'}]" in row


def test_print_config(run, monkeypatch) -> None:
    """Every setting with its value and where it was said, and nothing is served."""
    monkeypatch.setenv("SDGRPC_QUEUE_SIZE", "5")
    lines = run("serve", "--print-config", "--max-steps", "30", "--no-batching").stdout.splitlines()
    assert len(lines) == len(described_settings())
    assert "queue_size = 5" in lines[next(i for i, line in enumerate(lines) if line.startswith("queue"))]
    found = {line.partition(" ")[0]: line.rpartition("# ")[2] for line in lines}
    assert found["queue_size"] == "SDGRPC_QUEUE_SIZE"
    assert (found["max_steps"], found["batching"], found["listen"]) == (
        "--max-steps",
        "--no-batching",
        "default",
    )


def test_what_is_printed_is_a_file_of_settings(run, tmp_path: Path) -> None:
    """The printed settings are TOML that says the same."""
    first = run("serve", "--print-config", "--max-steps", "30", "--model", "a=embedded", "--lora-dir", ".")
    (tmp_path / "server.toml").write_text(first.stdout)
    again = run("serve", "--print-config", "--config", "server.toml")
    values = [
        [line.partition("  #")[0].strip() for line in each.stdout.splitlines()] for each in (first, again)
    ]
    assert values[0] == values[1]


def test_flags_reach_the_settings(run, monkeypatch, tmp_path: Path) -> None:
    """What was given as a flag wins over the environment and the file; what was not is left to them."""
    seen: list[Settings] = []

    async def fake_serve(
        settings: Settings, _open_engine: object, *, announce: object, end: object, observers: object
    ) -> None:
        assert None not in (announce, end, observers)
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


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--listen", "nowhere"], "error: listen: is not HOST:PORT"),
        (["--max-steps", "0"], "error: max_steps: input should be greater than or equal to 1, not 0"),
        (["--max-steps", "many"], "error: max_steps: input should be a valid integer"),
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
        import numpy_of_old  # type: ignore[import-not-found]  # noqa: F401
    assert "numpy_of_old" not in sys.modules
    with pytest.raises(ModuleNotFoundError, match=r"sdgrpc\.none"), server_extra():
        import sdgrpc.none  # type: ignore[import-not-found]  # noqa: F401
