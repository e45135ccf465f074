"""How models use their device: what is compiled, and whether LoRA factors are kept there. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sdgrpc.diffusion.compiling.options import CompileOptions
from sdgrpc.settings import Settings
from sdgrpc.settings.text import size_entry


@dataclass(frozen=True, slots=True)
class ChosenOptions:
    """What was chosen for one device."""

    compiling: CompileOptions
    resident_factors: bool
    factor_bytes: int
    sizes: Sequence[tuple[int, int]] = ()

    @property
    def packs(self) -> bool:
        """Whether networks are called as they are, with weights that may lie as the processor wants them."""
        return self.compiling.mode == "off" and not self.resident_factors


@dataclass(frozen=True, slots=True)
class DeviceOptions:
    """The settings of the same names; `auto` is graphs and resident factors on CUDA, neither elsewhere."""

    compile: Literal["auto", "off", "blocks", "graphs"] = "auto"
    compile_graphs: int = Settings.model_fields["compile_graphs"].default
    compile_graph_bytes: int = Settings.model_fields["compile_graph_bytes"].default
    compile_size: Sequence[str] | None = None
    resident_factors: Literal["auto", "on", "off"] = "auto"
    lora_factor_bytes: int = Settings.model_fields["lora_factor_bytes"].default

    def on(self, device: str) -> ChosenOptions | None:
        """Choose for a type of device; None where that has no graphs and they are asked for.

        Graphs need weights at fixed addresses, which resident factors bring, asked for or not.
        """
        cuda = device == "cuda"
        mode = self.compile if self.compile != "auto" else ("graphs" if cuda else "off")
        if mode == "graphs" and not cuda:
            return None
        resident = cuda if self.resident_factors == "auto" else self.resident_factors == "on"
        return ChosenOptions(
            CompileOptions(mode, max_graphs=self.compile_graphs, graph_bytes=self.compile_graph_bytes),
            resident or mode == "graphs",
            self.lora_factor_bytes,
            [size_entry(size) for size in self.compile_size or ()],
        )
