"""A real server with two models and room for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from safetensors.torch import load_file, save_file

from sdgrpc.v1 import catalog_pb2 as pb
from sdgrpc.v1 import catalog_pb2_grpc, diffusion_pb2, diffusion_pb2_grpc
from tests.support.api import details_of
from tests.support.models import save_model
from tests.support.server import of_one_engine, running_server


@of_one_engine
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


def test_a_model_with_nan_in_its_weights_is_named_and_the_others_are_served(tmp_path: Path) -> None:
    """In the log and to each request; health and the list of models say that the server serves."""
    folders = {name: save_model(tmp_path / name) for name in ("sound", "sick")}
    weights = folders["sick"] / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bias"][0] = float("nan")
    save_file(tensors, weights)
    flags = [part for name, folder in folders.items() for part in ("--model", f"{name}={folder}")]
    with (
        running_server(tmp_path / "log", *flags, "--resident-models", "2") as server,
        grpc.insecure_channel(server.target) as channel,
    ):
        diffusion = diffusion_pb2_grpc.DiffusionServiceStub(channel)
        catalog = catalog_pb2_grpc.CatalogServiceStub(channel)

        def request(model: str) -> diffusion_pb2.GenerateRequest:
            sampling = diffusion_pb2.Sampling(steps=2, seed=3)
            return diffusion_pb2.GenerateRequest(prompt="a cat", model=model, sampling=sampling)

        health_stub: Any = health_pb2_grpc.HealthStub(channel)
        health = health_stub.Check(health_pb2.HealthCheckRequest())
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert "model sick is not usable: the model 'sick': the latents are not finite" in server.log_text()
        with pytest.raises(grpc.RpcError) as caught:
            list(diffusion.Generate(request("sick")))
        assert details_of(caught.value)["ErrorInfo"].reason == "MODEL_UNUSABLE"
        assert "'sick'" in caught.value.details()
        assert list(diffusion.Generate(request("sound")))[-1].HasField("finished")
        assert [model.name for model in catalog.ListModels(pb.ListModelsRequest()).models] == [
            "sound",
            "sick",
        ]
        status = next(catalog.WatchStatus(pb.WatchStatusRequest()))
        assert (status.ready, status.queued, status.running) == (True, 0, 0)
