"""LoRA files that change while a server uses them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sdgrpc.client import Client, LoraUnusableError
from tests.support.assets import LORAS
from tests.support.server import running_server


def test_a_file_that_is_swapped_or_truncated_in_use(tmp_path: Path) -> None:
    """Each picture is the old file's or the new one's; one cut in place is refused, and nothing crashes."""
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("sepia", "night"):
        shutil.copy(LORAS / f"{name}.safetensors", folder)
    used = folder / "used.safetensors"
    with (
        running_server(tmp_path / "server.log", "--lora-dir", str(folder)) as server,
        Client(server.target) as client,
    ):

        def draw(name: str) -> bytes:
            result = client.generate("a red star", loras=[f"{name}:0.9"], seed=3, steps=3).result()
            return result.images[0].open().convert("RGB").tobytes()

        sepia, night = draw("sepia"), draw("night")
        assert sepia != night
        shutil.copy(folder / "sepia.safetensors", used)
        assert draw("used") == sepia
        used.write_bytes((folder / "night.safetensors").read_bytes())  # in place, the same inode
        assert draw("used") == night
        (folder / "other").write_bytes((folder / "sepia.safetensors").read_bytes())
        (folder / "other").replace(used)  # another inode under the name
        assert draw("used") == sepia
        with used.open("r+b") as file:
            file.truncate(used.stat().st_size // 2)
        with pytest.raises(LoraUnusableError, match="is truncated"):
            draw("used")
        used.unlink()
        assert draw("sepia") == sepia
        shutil.copy(folder / "night.safetensors", used)
        assert draw("used") == night
