"""`inspect` and `verify` say what a job's report would, and no number that they do not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sdgrpc.cli.loras import _components
from sdgrpc.lora.describing.inspect import inspect
from sdgrpc.lora.describing.verify import verify
from tests.support.loras import to_file

PROJ = "lora_unet_down_blocks_0_attentions_0_proj_in"
OTHER = "lora_unet_down_blocks_0_attentions_1_proj_in"


def lora(module: str, alpha: Tensor | None = None) -> dict[str, Tensor]:
    """Factors of rank 4 for a layer of 320 by 320."""
    found = {f"{module}.lora_down.weight": torch.ones(4, 320), f"{module}.lora_up.weight": torch.ones(320, 4)}
    return found if alpha is None else found | {f"{module}.alpha": alpha}


OFT = {f"{PROJ}.oft_R.weight": torch.zeros(10, 496) + 0.01}
DORA = lora(PROJ, torch.tensor(4.0)) | {f"{PROJ}.dora_scale": torch.ones(320, 1)}
WARNED: dict[str, tuple[dict[str, Tensor], list[str]]] = {
    "no alpha": (lora(PROJ), ["alpha is missing in 1 of 1 modules, which are applied with a scale of 1"]),
    "alpha 0": (
        lora(PROJ, torch.tensor(0.0)),
        ["alpha is 0 in 1 of 1 modules, which therefore change nothing"],
    ),
    "an integer": (
        lora(PROJ, torch.tensor(4)),
        ["alpha is stored as an integer in 1 of 1 modules and used as it is"],
    ),
    "zeros": (
        {key: tensor * 0 for key, tensor in lora(PROJ).items()} | {f"{PROJ}.alpha": torch.tensor(4.0)},
        ["1 of 1 modules hold only zeros and change nothing"],
    ),
    "a token": (
        lora(PROJ, torch.tensor(4.0)) | {"bundle_emb.smf.string_to_param.*": torch.ones(2, 768)},
        ["brings the token 'smf' for the prompt (2 vectors)"],
    ),
    "a rotation": (OFT, []),
    "magnitudes": (DORA, []),
    "a bias alone": ({f"{PROJ}.diff_b": torch.ones(320)}, []),
    "all is well": (lora(PROJ, torch.tensor(4.0)), []),
}


@pytest.mark.parametrize("name", WARNED)
def test_both_say_what_a_report_would(tmp_path: Path, name: str) -> None:
    """The same sentences, in the table's order."""
    tensors, expected = WARNED[name]
    path = to_file(tmp_path / "x.safetensors", tensors)
    found = inspect(path)
    (row,) = verify(tmp_path)
    assert not found.refusal
    assert list(found.warnings) == list(row.warnings) == expected


@pytest.mark.parametrize("tensors", [OFT, DORA, DORA | lora(OTHER, torch.tensor(4.0))])
def test_a_norm_that_depends_on_the_weight_is_null(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    """Not 0, and no sum of the others: of the file and of the module."""
    path = to_file(tmp_path / "x.safetensors", tensors)
    (row,) = verify(tmp_path)
    assert json.loads(json.dumps(row.as_dict()))["norm"] is None
    found = inspect(path)
    assert found.modules[0].delta_norm is None
    (line,) = _components(found.modules).values()
    assert line.endswith("norm of the change depends on the weights")


def test_a_norm_that_is_known(tmp_path: Path) -> None:
    """Alpha / rank * up @ down of ones: 4 everywhere."""
    to_file(tmp_path / "x.safetensors", lora(PROJ, torch.tensor(4.0)))
    (row,) = verify(tmp_path)
    assert row.norm == pytest.approx(4 * 320)
