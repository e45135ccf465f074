"""Models whose files look like ours, told by what a file says it was trained on.

Kolors and Playground have SDXL's U-Net, SSD-1B and its like a part of it: names and shapes fit, and what was
trained would still be nothing but noise. Metadata lies now and then, so that only these names count, which
nobody writes by mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sdgrpc.lora.dialects.peft import METADATA_KEY
from sdgrpc.lora.headers.flat import parse_object

SAYING = (
    "modelspec.architecture",
    "ss_base_model_version",
    "ss_sd_model_name",
    "base_model_name_or_path",
    "base_model",
    "pretrained_model_name_or_path",
    "sd_version",
)
"""Keys of headers and configurations that name the base; the latter three also after a component."""

OTHERS: Sequence[tuple[str, str]] = (
    (r"(?<![a-z])kolors(?![a-z])", "Kolors"),
    (r"playground[-_ ]?v?\d|playgroundai/", "Playground"),
    (r"(?<![a-z])cosxl(?![a-z])", "CosXL"),
    (r"pixart", "PixArt"),
    (r"kandinsky", "Kandinsky"),
    (r"deepfloyd|(?:^|/)if-i+-", "DeepFloyd IF"),
    (r"w(?:ue|u|ü)rstchen|stable-cascade", "Stable Cascade"),
    (r"hunyuan-?dit", "HunyuanDiT"),
    (r"auraflow", "AuraFlow"),
)
"""What bases of other architectures, or trained anew in one of ours, are called."""

SSD_1B, VEGA, KOALA, SMALL_SD = "SSD-1B", "Segmind Vega", "KOALA", "a smaller Stable Diffusion 1 (BK-SDM)"
SMALLER: Sequence[tuple[str, str]] = (
    (r"ssd[-_ ]?1b", SSD_1B),
    (r"segmind[-_/ ]*vega|^(?:stable-diffusion-xl-)?vega(?:/|$)", VEGA),
    (r"(?<![a-z])koala[-_ ]?(?:\d|lightning|xl)|etri-vilab/", KOALA),
    (r"bk-sdm|segmind/(?:small|tiny)-sd|(?:^|[/\\])(?:small|tiny)-sd(?:$|[/.])", SMALL_SD),
)
"""What the parts of SDXL and of Stable Diffusion 1 are called that were trained as models of their own."""

_OTHERS = [(re.compile(pattern), name) for pattern, name in OTHERS]
_SMALLER = [(re.compile(pattern), name) for pattern, name in SMALLER]


def other_architecture(said: Iterable[str]) -> str:
    """Return the other architecture that a file says it is for; nothing if it says none."""
    return _first(said, _OTHERS)


def smaller_model(said: Iterable[str]) -> str:
    """Return the smaller model that a file says it is for; nothing if it says none."""
    return _first(said, _SMALLER)


def bases_said(metadata: Mapping[str, str], configurations: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return what a file's header, and its configurations, say of its base, in lower case."""
    header = {**metadata, **parse_object(metadata.get(METADATA_KEY, ""))}
    texts = [
        text
        for values in (header, *configurations)
        for name, text in values.items()
        if name in SAYING or name.rpartition(".")[2] in SAYING[3:]
    ]
    return [text.lower() for text in texts if isinstance(text, str)]


def _first(said: Iterable[str], kinds: Sequence[tuple[re.Pattern[str], str]]) -> str:
    texts = list(said)
    return next((name for pattern, name in kinds if any(pattern.search(text) for text in texts)), "")
