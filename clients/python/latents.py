"""Turn LATENT previews into pictures by the catalog's factors: `python latents.py HOST:PORT FOLDER`.

Beside the stubs it needs numpy and pillow.
"""

import sys
from pathlib import Path

import grpc
import numpy as np
from PIL import Image

from draw import OPTIONS, authorization
from sdgrpc.v1 import catalog_pb2, diffusion_pb2
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub


def picture(latent: diffusion_pb2.Latent, form: catalog_pb2.LatentFormat) -> Image.Image:
    """A small picture, one pixel per latent pixel: a linear map of the channels to red, green and blue."""
    values = np.frombuffer(latent.data, "<f2").astype(np.float32).reshape(latent.channels, -1)
    factors, bias = np.float32(form.rgb_factors).reshape(-1, 3), np.float32(form.rgb_bias)
    unit = np.clip((values.T @ factors + bias) / 2 + 0.5, 0, 1)
    return Image.fromarray(np.round(255 * unit).astype(np.uint8).reshape(latent.height, latent.width, 3))


def draw(server: str, folder: Path) -> None:
    """Draw with the default model and save each latent's picture."""
    folder.mkdir(parents=True, exist_ok=True)
    token = authorization()
    with grpc.insecure_channel(server, OPTIONS) as channel:
        listed = CatalogServiceStub(channel).ListModels(catalog_pb2.ListModelsRequest(), metadata=token)
        model = listed.models[0]
        preview = diffusion_pb2.PreviewOptions(kind=diffusion_pb2.PREVIEW_KIND_LATENT)
        request = diffusion_pb2.GenerateRequest(
            model=model.name,
            prompt="a red star on a blue background",
            output=diffusion_pb2.Output(preview=preview),
        )
        for event in DiffusionServiceStub(channel).Generate(request, metadata=token):
            for each in event.progress.previews:
                name = f"latent-{each.image_index}-{event.progress.step:02}.png"
                picture(each.latent, model.latent_format).save(folder / name)


if __name__ == "__main__":
    draw(sys.argv[1], Path(sys.argv[2]))
