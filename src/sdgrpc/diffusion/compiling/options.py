"""What the operator says about compiling. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["off", "blocks", "graphs"]


@dataclass(frozen=True, slots=True)
class CompileOptions:
    """How a UNet is called.

    `max_shapes` are compiled at most. Of graphs those used last are kept, `max_graphs` of them; all are
    recorded anew when their memory for activations exceeds `graph_bytes`.
    """

    mode: Mode = "off"
    max_shapes: int = 64
    max_graphs: int = 16
    graph_bytes: int = 8 << 30
