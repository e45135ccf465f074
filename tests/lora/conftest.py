"""Fixtures for the rooms of LoRA files."""

from __future__ import annotations

from io import FileIO
from pathlib import Path

import pytest

from sdgrpc.lora.files import reading
from tests.support.files import BytesRead


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> BytesRead:
    """Count what is read of LoRA files from now on."""
    counts, open_regular = BytesRead(), reading.open_regular  # type: ignore[attr-defined]

    def opened(path: Path, *, follow_links: bool = True) -> FileIO:
        return counts.counted(open_regular(path, follow_links=follow_links), path)

    monkeypatch.setattr(reading, "open_regular", opened)
    return counts
