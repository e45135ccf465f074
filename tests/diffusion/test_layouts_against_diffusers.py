"""Every architecture in both layouts, loaded by us and by diffusers itself: equal weights and latents.

Diffusers' `from_single_file` takes the configurations from the folder beside; ours are built in. The
tolerance is that of `test_against_diffusers`: the same float32 products, summed in another order.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from sdgrpc.diffusion.checkpoints.loading import load
from sdgrpc.diffusion.model import Model
from sdgrpc.domain import Scheduler, TaskKind
from tests.support.oracle import diffusers_errs, latents_of, pipeline_from, relative_difference
from tests.support.original import STATED, save_original
from tests.support.published import ARCHITECTURES, UNETS
from tests.support.tasks import draw, task

CPU = torch.device("cpu")
TOLERANCE = 1e-4
LAYOUTS = ("folder", "file")
# What each architecture's ordinary model and its inpainting model are asked for.
CALLS = [(kind, False) for kind in TaskKind] + [(TaskKind.INPAINT, True)]
# Sixteen cells, sixteen schedulers: in each layout every scheduler has its turn.
CELLS = [
    (architecture, *call, scheduler)
    for (architecture, call), scheduler in zip(
        [(one, call) for one in ARCHITECTURES for call in CALLS], Scheduler, strict=True
    )
]

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
Key = tuple[str, bool]


@pytest.fixture(scope="module")
def sources(
    models: Mapping[Key, Model], folders: Mapping[Key, Path], tmp_path_factory: pytest.TempPathFactory
) -> Mapping[Key, Mapping[str, Path]]:
    """Both layouts of each architecture, ordinary and inpainting."""
    root = tmp_path_factory.mktemp("layouts")
    return {
        key: {
            "folder": folders[key],
            "file": save_original(model, root / f"{key[0]}-{key[1]}.safetensors", STATED.get(key[0])),
        }
        for key, model in models.items()
    }


def ours(source: Mapping[str, Path], layout: str) -> Model:
    return load("tiny", source[layout], device=CPU, dtype=None, tokenizer=source["folder"] / "tokenizer")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("architecture", "kind", "nine", "scheduler"), CELLS)
def test_every_call_on_every_architecture(
    sources: Mapping[Key, Mapping[str, Path]],
    architecture: str,
    kind: TaskKind,
    nine: bool,
    scheduler: Scheduler,
    layout: str,
) -> None:
    """With the scheduler that the model was published with, and with one of the sixteen."""
    source = sources[architecture, nine]
    model = ours(source, layout)
    for one in {model.info.scheduler, scheduler}:
        asked = task(kind, scheduler=one, steps=3)
        theirs = latents_of(pipeline_from(source[layout], source["folder"], asked), asked)
        equal = relative_difference(draw(model, asked), theirs) <= TOLERANCE
        assert equal is not diffusers_errs(model, asked)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nine", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_weights_are_those_that_diffusers_loads(
    sources: Mapping[Key, Mapping[str, Path]], architecture: str, nine: bool, layout: str
) -> None:
    """Every tensor of every network to the bit, by the same names."""
    source = sources[architecture, nine]
    model = ours(source, layout)
    pipeline = pipeline_from(source[layout], source["folder"], task())
    networks: dict[str, nn.Module] = {"unet": model.unet, "vae": model.vae, **model.text_encoders}
    for name, network in networks.items():
        theirs = getattr(pipeline, name).state_dict()
        found = network.state_dict()
        assert found.keys() == theirs.keys()
        assert not [key for key, tensor in found.items() if not torch.equal(tensor, theirs[key])]


SMALLER: dict[str, dict[str, Any]] = {
    "SSD-1B": {
        "transformer_layers_per_block": [[1, 1], [2, 2], [3, 3]],
        "reverse_transformer_layers_per_block": [[3, 3, 5], [2, 1, 1], [1, 1, 1]],
        "mid_block_type": "UNetMidBlock2D",
    },
    "Vega": {"transformer_layers_per_block": [1, 1, 2], "mid_block_type": "UNetMidBlock2D"},
    "KOALA": {"transformer_layers_per_block": [1, 2, 3], "layers_per_block": 1, "mid_block_type": None},
}
"""SDXL's smaller relatives with fewer blocks, in the same proportions."""


@pytest.mark.parametrize("name", SMALLER)
def test_smaller_relatives_of_sdxl_in_single_files(
    folders: Mapping[Key, Path], tmp_path: Path, name: str
) -> None:
    """Their architecture is told by their tensors: the weights and latents are diffusers' own loader's."""
    folder = Path(shutil.copytree(folders["sdxl", False], tmp_path / "folder"))
    torch.manual_seed(3)
    config = {"layers_per_block": 2} | UNETS["sdxl"] | SMALLER[name]
    UNet2DConditionModel(sample_size=8, **config).save_pretrained(folder / "unet")
    model = load("folder", folder, device=CPU, dtype=None)
    path = save_original(model, tmp_path / "one.safetensors")
    single = load("file", path, device=CPU, dtype=None, tokenizer=folder / "tokenizer")
    asked = task(scheduler=Scheduler.EULER, steps=3)
    theirs = pipeline_from(path, folder, asked)
    found, expected = single.unet.state_dict(), theirs.unet.state_dict()
    assert found.keys() == expected.keys()
    assert not [key for key, tensor in found.items() if not torch.equal(tensor, expected[key])]
    assert torch.equal(draw(single, asked), draw(model, asked))
    assert relative_difference(draw(single, asked), latents_of(theirs, asked)) <= TOLERANCE
