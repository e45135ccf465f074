"""The model that comes with the package."""

from __future__ import annotations

from pathlib import Path

# The source that names the model packaged with sdgrpc.
EMBEDDED = "embedded"


def embedded_folder() -> Path:
    """Where the packaged model lies."""
    return Path(__file__).resolve().parent / "assets" / "tiny" / "model"
