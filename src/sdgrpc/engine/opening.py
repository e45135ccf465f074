"""From settings to an engine that is ready: models, LoRA folders, the device and its dtype."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import torch

from sdgrpc.diffusion.checkpoints.loading import OpenModel, open_model
from sdgrpc.diffusion.checkpoints.tiny_vae import with_tiny_vae
from sdgrpc.diffusion.upscaling.network import load_all
from sdgrpc.engine.hashing.models import WeightFiles
from sdgrpc.engine.local import LocalEngine
from sdgrpc.engine.models.served_models import Loadable
from sdgrpc.engine.observing.observer import Observer
from sdgrpc.engine.options import EngineOptions
from sdgrpc.lora.embeddings.library import EmbeddingLibrary
from sdgrpc.lora.store.checking import check
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.lora.store.upload_store import UploadStore
from sdgrpc.settings import Settings


def open_engine(
    settings: Settings,
    *,
    on_failure: Callable[[], None] = lambda: None,
    observer: Observer | None = None,
) -> LocalEngine:
    """Open every model, index the LoRA folders, load the first models and draw a step with each.

    Blocks; call it in a thread. `on_failure` is called, from any thread, once the engine cannot go on;
    `observer` is told what the engine does for clients.

    Raises:
        ModelError: a model or an upscaler cannot be opened, or none can be drawn with; the message says why.

    """
    device, dtype = choose_device(settings.device), choose_dtype(settings.dtype)
    options = EngineOptions.of(settings)
    chosen = options.device.on(device.type)
    packed = chosen is not None and chosen.packs
    models = [
        loadable(opened(settings, name, source), device, dtype, packed=packed)
        for name, source in settings.models
    ]
    uploads = None
    if settings.upload_dir is not None:
        uploads = UploadStore(settings.upload_dir, settings.upload_budget_bytes, check)
    library = LoraLibrary(
        settings.lora_dirs,
        follow_links=settings.follow_links,
        allow_inline=settings.allow_inline_loras,
        uploads=uploads,
    )
    embeddings = EmbeddingLibrary(settings.embedding_dir or (), follow_links=settings.follow_links)
    upscalers = load_all(settings.upscalers, device)
    engine = LocalEngine(models, library, options, observer, embeddings, upscalers)
    engine.on_failure(on_failure)
    asyncio.run(warmed_up(engine))
    return engine


def opened(settings: Settings, name: str, source: str) -> OpenModel:
    """A model with what the settings give it besides: a VAE of its own, a tiny one."""
    model = open_model(name, source, tokenizer=settings.tokenizer, vae=settings.vaes.get(name))
    tiny = settings.tiny_vaes.get(name)
    return model if tiny is None else with_tiny_vae(model, tiny)


async def warmed_up(engine: LocalEngine) -> None:
    """Warm an engine up; close it if that fails."""
    try:
        await engine.warm_up()
    except BaseException:
        await engine.close()
        raise


def loadable(
    opened: OpenModel, device: torch.device, dtype: torch.dtype | None, *, packed: bool = False
) -> Loadable:
    """A model to be loaded onto a device; without a `dtype` in the device's own, `packed` as `load` says."""
    chosen = dtype or opened.dtype(device)
    shapes = {
        component: {name: tuple(weight.shape) for name, weight in network.module.named_parameters()}
        for component, network in opened.networks.items()
        if component != "vae"
    }
    return Loadable(
        opened.info,
        str(chosen).removeprefix("torch."),
        shapes,
        partial(opened.load, device, chosen, packed=packed),
        WeightFiles(opened.place, opened.files),
    )


def choose_device(name: str) -> torch.device:
    """Return the named device; `auto` is the first of cuda, mps and cpu that is there."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def choose_dtype(name: str) -> torch.dtype | None:
    """Return the named dtype; None for `auto`, which leaves the choice to the model."""
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    return names.get(name)
