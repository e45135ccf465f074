"""What factors started from. Where they started from the base's weights, a plain sum would be wrong.

PiSSA, OLoRA, CorDA, LoRA-GA and LoftQ take the factors that they begin with out of W: what was trained is
W - B0 A0 + B A, so B A alone is not the difference from W. PEFT can save such an adapter as a plain LoRA
(`path_initial_model_for_weight_conversion`), whose configuration then says `true`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HARMLESS = re.compile(
    r"true|false|none|null|default|gaussian|normal|uniform|zeros?|orthogonal|eva|mica"
    r"|(?:kaiming|xavier)(?:_uniform|_normal)?"
)
"""Initializations that leave W as it is; some of PEFT, some of other trainers."""

FROM_WEIGHTS: Mapping[str, str] = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loraga": "LoRA-GA",
    "loftq": "LoftQ",
    "milora": "MiLoRA",
}
"""How the names begin of those that change W -> what they are called."""

VARIANTS: Mapping[str, str] = {
    "alora_invocation_tokens": "activated LoRA (aLoRA), which depends on the text",
    "use_bdlora": "block-diagonal LoRA (BD-LoRA)",
    "use_qalora": "QALoRA",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
"""Settings of PEFT's LoRA that make another algorithm of the same tensors."""


def fault_of(values: Mapping[str, Any]) -> str:
    """Return why a LoRA with this configuration cannot be applied as a sum; nothing where it can."""
    for name, title in VARIANTS.items():
        if values.get(name):
            return f"is an adapter of {title}, not applied by this version ({name})"
    said = values.get("init_lora_weights")
    if not isinstance(said, str) or HARMLESS.fullmatch(said.strip().lower()):
        return ""
    plain = said.strip().lower().replace("-", "_")
    title = next((title for name, title in FROM_WEIGHTS.items() if plain.startswith(name)), "")
    why = (
        f"started from the base's weights ({title}, init_lora_weights {said!r:.40})"
        if title
        else f"may have started from the base's weights (init_lora_weights {said!r:.40} is not known)"
    )
    return f"its factors {why}; convert it to a plain LoRA first"
