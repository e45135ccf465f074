"""What stands beside a module's tensors: in the file's header, and in the configuration beside the file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from torch import Tensor

from sdgrpc.errors import LoraIncompatible, LoraUnsupported
from sdgrpc.lora.algorithms.algorithm import Algorithm
from sdgrpc.lora.algorithms.peft.table import FOURIERFT, ROAD
from sdgrpc.lora.algorithms.registry import LOHA, LOKR
from sdgrpc.lora.dialects.peft import METHODS, MissingConfiguration, PeftConfig
from sdgrpc.lora.dialects.relatives import bases_said, other_architecture, smaller_model
from sdgrpc.lora.dialects.rotating import rotation
from sdgrpc.lora.files.reading import TensorFile

NOTHING = PeftConfig({})
PEFTS_DOWN = ".lora_A."
"""How PEFT calls a LoRA's down factor: a configuration beside a file is for such tensors alone."""


@dataclass(frozen=True, slots=True)
class Configurations:
    """What a file's header says, and what the `adapter_config.json` beside it; the former goes first."""

    header: PeftConfig
    beside: PeftConfig
    metadata: Mapping[str, str]
    smaller: str = ""
    """The smaller relative of a base that the file is for, where it says so."""

    @classmethod
    def of(
        cls, file: TensorFile, modules: Iterable[Mapping[str, str]], beside: PeftConfig | None
    ) -> Configurations:
        """Collect what is said about a file's modules, each role -> key.

        Raises:
            LoraUnsupported: its factors started from the base's weights, so that they are no difference.
            LoraIncompatible: it is for a model of another architecture.

        """
        header = PeftConfig.from_metadata(file.metadata) or NOTHING
        downs = [keys["down"] for keys in modules if "down" in keys]
        is_beside = beside is not None and any(PEFTS_DOWN in key for key in downs)
        counted = [header, beside] if beside and is_beside else [header]
        said = bases_said(file.metadata, (values for one in counted for values in one.values.values()))
        if name := other_architecture(said):
            raise LoraIncompatible(
                file.name, f"is for {name}, not for Stable Diffusion 1, 2 or XL, as it says itself"
            )
        if downs and (fault := next((one.fault for one in counted if one.fault), "")):
            raise LoraUnsupported(file.name, fault)
        return cls(header, beside or NOTHING, file.metadata, smaller_model(said))

    def of_module(
        self,
        algorithm: Algorithm,
        spelling: str,
        keys: Mapping[str, str],
        tensors: Mapping[str, Tensor],
        *,
        is_wide: bool,
    ) -> Mapping[str, Tensor]:
        """Return what is said about a module besides its tensors, by role; an alpha in the file goes first.

        Raises:
            UnknownPattern: whose number a pattern gives cannot be told.
            MissingConfiguration: without one the algorithm cannot be computed.

        """
        if "oft_R" in tensors:
            said = self.header.rotation(spelling) or self.beside.rotation(spelling)
            return rotation(self.metadata, spelling, tensors) | said
        kind = algorithm.name.upper()
        settings = self.header.method(kind, spelling) or self.beside.method(kind, spelling)
        if algorithm in (FOURIERFT, ROAD) and len(settings) < len(METHODS[kind]):
            raise MissingConfiguration(
                f"uses {algorithm.title}, whose settings stand in adapter_config.json; put it beside the file"
            )
        if settings and "alpha" not in tensors:
            return settings
        if not algorithm.has_alpha or tensors.keys() & {"alpha", "scale"}:
            return {}
        rank = algorithm.rank(tensors)
        if rank is not None:
            alpha = self.header.alpha(spelling, rank, is_wide=is_wide)
            if alpha is None and PEFTS_DOWN in keys.get("down", ""):
                alpha = self.beside.alpha(spelling, rank)
            if alpha is not None:
                return {"alpha": alpha}
        if algorithm in (LOHA, LOKR):
            return self.header.lycoris(kind, spelling, rank) or self.beside.lycoris(kind, spelling, rank)
        return {}
