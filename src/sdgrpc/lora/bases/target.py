"""What a file is judged against."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sdgrpc.domain.bases import base_of_width
from sdgrpc.errors import ModelError
from sdgrpc.lora.bases.architectures import model_folder_shapes
from sdgrpc.lora.bases.module_names import UNET, NameIndex


@dataclass(frozen=True, slots=True)
class Target:
    """What a file is judged against: the names of a model, and its base as files are told it."""

    names: NameIndex
    base: str

    @classmethod
    def of_folder(cls, folder: Path) -> Target:
        """Read the names of a model in diffusers' layout, from its weights' headers.

        Raises:
            ModelError: there are no safetensors weights of a U-Net in it.
            LoraError: a weight file is broken.

        """
        shapes = model_folder_shapes(folder)
        if UNET not in shapes:
            raise ModelError(f"{folder} holds no model in diffusers' layout (unet/*.safetensors is missing)")
        names = NameIndex(shapes)
        return cls(names, base_of_width(names.cross_attention_width))
