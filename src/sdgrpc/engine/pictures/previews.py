"""Previews of unfinished pictures, made when somebody reads them.

On a thread `sdgrpc-preview`, which `engine/local.py` makes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from sdgrpc import images
from sdgrpc.diffusion.model import Model
from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.diffusion.pictures.previews import fitted, latent_array, preview_pictures
from sdgrpc.domain import Preview, PreviewKind, PreviewOptions
from sdgrpc.errors import OutOfMemory
from sdgrpc.machine.out_of_memory import as_out_of_memory
from sdgrpc.machine.streams import Mark, own_stream


@torch.inference_mode()
def render_previews(
    model: Model, options: PreviewOptions, predict_clean: Callable[[], torch.Tensor], ready: Mark
) -> tuple[Preview, ...]:
    """One preview per image of the predicted clean latents `[n, 4, h, w]`, for which the device is `ready`.

    None where memory is short, or the latents are not finite: what is wrong with those, the end tells.

    Raises:
        ModelError: as `decode`.

    """
    try:
        with own_stream(model.device, finish=True):
            ready.queue_after()
            return as_out_of_memory(lambda: _previews(model, options, predict_clean()), model.device)
    except OutOfMemory:
        return ()


def _previews(model: Model, options: PreviewOptions, denoised: torch.Tensor) -> tuple[Preview, ...]:
    if not torch.isfinite(denoised).all():
        return ()
    if options.kind is PreviewKind.LATENT:
        return tuple(Preview(index, latent_array(row)) for index, row in enumerate(denoised))
    if options.kind is PreviewKind.DECODED:
        longer_side = options.max_side or max(denoised.shape[-2:])
        pictures = [fitted(picture, longer_side) for picture in decode(model, denoised, tiny=True)]
    else:
        pictures = preview_pictures(model, denoised, options.max_side)
    return tuple(Preview(index, images.encode(one, "image/png")) for index, one in enumerate(pictures))
