"""How files begin that PyTorch pickled."""

from __future__ import annotations

PICKLE_SUFFIXES = frozenset({".ckpt", ".pt", ".pth", ".bin"})
PICKLE_STARTS = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
