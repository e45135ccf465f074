"""Fixtures for the whole suite."""

from __future__ import annotations

import os

# Small models on shared cores: two OpenMP threads beside a busy core are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
