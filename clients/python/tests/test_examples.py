"""The two programs against a real server."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import pytest
from PIL import Image

import draw
import latents
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub
from server import Server

FOLDER = Path(__file__).resolve().parents[1]


def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run one of the programs as a reader of the README does."""
    command = [sys.executable, program, *arguments]
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=200, check=False)


def test_draw_saves_previews_and_the_picture(server: Server, tmp_path: Path) -> None:
    """It says what both LoRAs did and how far it is; the last preview and the picture are files."""
    done = run("draw.py", server.target, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "LoRA postcard at 0.75" in done.stdout
    assert "LoRA sepia at 0.5" in done.stdout
    assert "step 20 of 20" in done.stdout
    names = {path.name for path in tmp_path.iterdir()}
    assert {"picture-7.png", "preview-0-15.png"} <= names
    for name in names:
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (128, 128)


def test_draw_explains_a_failure(tmp_path: Path) -> None:
    """Without a server there is a line, and no traceback."""
    done = run("draw.py", "127.0.0.1:1", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.startswith("UNAVAILABLE: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (pb.GenerateRequest(width=100), ["INVALID_ARGUMENT", "INVALID_REQUEST", "width", "multiple of 8"]),
        (
            pb.GenerateRequest(prompt="a star", loras=[pb.Lora(name="nope")]),
            ["NOT_FOUND", "LORA_NOT_FOUND", "sdgrpc.v1.Lora", "nope"],
        ),
    ],
)
def test_explain_names_the_details(server: Server, request_: pb.GenerateRequest, words: list[str]) -> None:
    """The reason, every wrong field, what is missing."""
    with grpc.insecure_channel(server.target) as channel, pytest.raises(grpc.RpcError) as caught:
        list(DiffusionServiceStub(channel).Generate(request_))
    explained = draw.explain(caught.value)
    assert all(word in explained for word in words), explained


def test_the_stubs_are_all_it_needs() -> None:
    """Neither torch nor the sdgrpc distribution is imported: `sdgrpc` is the folder beside the program."""
    code = "import draw, latents, sys, sdgrpc; print(sdgrpc.__file__, 'torch' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [str(FOLDER / "sdgrpc/__init__.py"), "False"]


def test_latents_saves_pictures(server: Server, tmp_path: Path) -> None:
    """The last preview of twenty steps is there, of the latent's size."""
    done = run("latents.py", server.target, str(tmp_path))
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "latent-0-19.png") as picture:
        assert picture.size == (16, 16)


def test_latents_are_what_the_server_shows(server: Server) -> None:
    """A LATENT preview, decoded here, is the PICTURE preview of the same step, but for float16's rounding."""
    with grpc.insecure_channel(server.target) as channel:
        models = CatalogServiceStub(channel).ListModels(catalog_pb2.ListModelsRequest()).models
        (latent,), (picture,) = (last_previews(channel, kind) for kind in (2, 1))
    ours = np.asarray(latents.picture(latent.latent, models[0].latent_format), int)
    theirs = np.asarray(Image.open(io.BytesIO(picture.picture.data)).convert("RGB"), int)
    assert np.abs(ours - theirs).max() <= 1
    assert theirs.std() > 10


def last_previews(channel: grpc.Channel, kind: pb.PreviewKind.ValueType) -> list[pb.Preview]:
    """Those of the last step that has any, of four."""
    request = pb.GenerateRequest(
        prompt="a red circle on a white background",
        sampling=pb.Sampling(steps=4, seed=1),
        output=pb.Output(preview=pb.PreviewOptions(kind=kind)),
    )
    events = list(DiffusionServiceStub(channel).Generate(request))
    return [list(event.progress.previews) for event in events if event.progress.previews][-1]
