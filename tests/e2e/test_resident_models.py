"""A real server with two models and room for one."""

from __future__ import annotations

from pathlib import Path

import grpc

from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import catalog_pb2_grpc, diffusion_pb2, diffusion_pb2_grpc
from tests.support.models import save_model
from tests.support.server import running_server


def test_requests_name_the_model_and_it_comes_into_memory(tmp_path: Path) -> None:
    """The first is there at the start; whoever is named takes its place, and pictures stay what they were."""
    folders = {name: save_model(tmp_path / name, seed=seed) for seed, name in enumerate(("first", "second"))}
    flags = [part for name, folder in folders.items() for part in ("--model", f"{name}={folder}")]
    with (
        running_server(tmp_path / "log", *flags, "--resident-models", "1") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)
        diffusion = diffusion_pb2_grpc.DiffusionServiceStub(channel)

        def resident() -> dict[str, bool]:
            models = catalog.ListModels(pb.ListModelsRequest()).models
            assert all(model.size_bytes > 0 for model in models if model.resident)
            return {model.name: model.resident for model in models}

        def draw(model: str) -> bytes:
            request = diffusion_pb2.GenerateRequest(
                prompt="a cat", model=model, sampling=diffusion_pb2.Sampling(steps=2, seed=3)
            )
            events = list(diffusion.Generate(request))
            assert events[-1].HasField("finished")
            (image,) = [event.image.image.data for event in events if event.HasField("image")]
            return image

        assert resident() == {"first": True, "second": False}
        before = draw("")
        other = draw("second")
        assert resident() == {"first": False, "second": True}
        assert other != before
        assert draw("first") == before
        assert resident() == {"first": True, "second": False}
        assert draw("second") == other
