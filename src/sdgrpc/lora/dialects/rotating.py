"""How the tools that write `oft_R.weight` make rotations of it, where they differ.

| tool | linear layer | convolution | besides |
|---|---|---|---|
| PEFT | W R' | W R' | configuration: `coft`, `eps`, the length of the series |
| OneTrainer | W R' | W R | `oft_R.scaled_oft`: Q / (2 sqrt(b - 1)); `ot_config`: `oft_coft`, `coft_eps` |
| sd-scripts, `networks.oft_v2` | W R' | W R | `ss_network_args`: `coft`, `coft_eps` |

From reading `OFTRotationModule` and what calls it in each. The latter two rotate a linear layer's input and
a convolution's weight with the same R, PEFT both inputs.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from sdgrpc.lora.dialects.peft import DEFAULT_COFT_EPS
from sdgrpc.lora.headers.flat import network_args, number, parse_object, said_true

ONETRAINER = ("ot_branch", "ot_revision", "ot_config")
"""Keys of the header, one of which OneTrainer always writes."""

_FLAT_NAMES = ("lora_unet_", "lora_te")
"""How kohya's names begin, which PEFT never writes."""


def rotation(metadata: Mapping[str, str], spelling: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return what the writer of a file says about its rotations, by role, beyond PEFT's configuration."""
    found: dict[str, Tensor] = {}
    is_onetrainer = "scaled_oft" in tensors or any(key in metadata for key in ONETRAINER)
    is_kohya = "oft" in metadata.get("ss_network_module", "").lower()
    if is_onetrainer or is_kohya or spelling.startswith(_FLAT_NAMES):
        found["kernels_forward"] = torch.tensor(True)
    said = parse_object(metadata.get("ot_config", "")) | network_args(metadata)
    if said_true(said.get("oft_coft", said.get("coft"))):
        eps = number(said.get("coft_eps"))
        found["coft_eps"] = torch.tensor(DEFAULT_COFT_EPS if eps is None else eps)
    return found
