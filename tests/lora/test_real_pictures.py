"""Pictures with real, trained files on random weights of SD1.5's real size."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import init_empty_weights
from torch import nn

from sdgrpc.diffusion.checkpoints.card import model_info
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.domain import Scheduler
from sdgrpc.engine.models.served_model import ServedModel
from sdgrpc.lora.store.library import LoraLibrary
from tests.lora.test_real_files import KRONECKER, LOW_RANK
from tests.support.full_size import full_size_networks, random_weight
from tests.support.loras import ref, require_shared
from tests.support.models import SD15_SCHEDULER, tiny_tokenizer
from tests.support.tasks import draw, pixels_of, task

CPU = torch.device("cpu")
ASKED = task(steps=1, guidance_scale=1.0, width=64, height=64, scheduler=Scheduler.EULER)
FILES = [*LOW_RANK, *KRONECKER]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(os.environ.get("SDGRPC_REQUIRE_ALL") != "1", reason="runs minutes"),
]


@dataclass(frozen=True)
class Base:
    """A model with no LoRA, what it draws, and the hash of its weights."""

    served: ServedModel
    latents: torch.Tensor
    picture: np.ndarray
    digest: str


def digest(model: Model) -> str:
    """Hash every bit of the weights that LoRAs may change."""
    found = hashlib.sha256()
    for component, network in model.lora_components().items():
        for name, weight in network.named_parameters():
            found.update(f"{component} {name}".encode())
            found.update(weight.detach().contiguous().view(-1).view(torch.uint8).numpy())
    return found.hexdigest()


def fill(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Give a network without weights random ones, a tensor at a time."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in list(network.named_parameters()):
        owner, _, leaf = name.rpartition(".")
        weight = random_weight(name, tuple(parameter.shape), generator).to(dtype)
        network.get_submodule(owner).register_parameter(leaf, nn.Parameter(weight, requires_grad=False))
    return network.eval()


@pytest.fixture(scope="module")
def base() -> Base:
    """UNet and text encoder in bfloat16, 2 GB, as they are served on a CPU; the VAE in float32."""
    tokenizer = tiny_tokenizer()
    with init_empty_weights():
        networks = full_size_networks(tokenizer)
    for name, network in networks.items():
        fill(network, torch.float32 if name == "vae" else torch.bfloat16)
    encoder, unet, vae = (networks[name] for name in ("text_encoder", "unet", "vae"))
    model = Model(
        info=model_info("full", Path("none"), networks, SD15_SCHEDULER, embedded=False),
        tokenizers={"tokenizer": tokenizer},
        text_encoders={"text_encoder": encoder},
        unet=unet,
        vae=vae,
        scheduler_config=SD15_SCHEDULER,
        device=CPU,
        dtype=torch.bfloat16,
    )
    latents = draw(model, ASKED)
    return Base(
        ServedModel.of(model, lora_cache_bytes=1),
        latents,
        pixels_of(decode(model, latents)[0]),
        digest(model),
    )


@pytest.mark.parametrize("name", FILES)
def test_a_picture_with_each_real_file(name: str, base: Base) -> None:
    """It is finite and not the base's; afterwards the base's weights are back, bit for bit."""
    model = base.served.model
    assert torch.isfinite(base.latents).all()
    file = LoraLibrary([require_shared("loras")]).find(ref(name=Path(name).stem))
    with base.served.sets.acquire([(file, ref())]) as lease:
        assert lease.reports[0].unmatched_tensors == 0
        assert lease.reports[0].relative_norm > 0
        for component in model.lora_components():
            base.served.use(component, lease)
        latents = draw(model, ASKED)
        picture = pixels_of(decode(model, latents)[0])
        base.served.restore()
    assert torch.isfinite(latents).all()
    assert not torch.equal(latents, base.latents)
    assert picture.shape == base.picture.shape == (64, 64, 3)
    assert (picture != base.picture).any()
    assert digest(model) == base.digest
