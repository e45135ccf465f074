"""What lies beside LoRA files, and textual inversions, over a real port: in the catalog, and as names."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator

import grpc
import pytest
import torch
from PIL import Image

from sdgrpc.lora.files.reading import hashes
from sdgrpc.v1 import catalog_pb2
from sdgrpc.v1 import diffusion_pb2 as pb
from sdgrpc.v1.catalog_pb2_grpc import CatalogServiceStub
from sdgrpc.v1.diffusion_pb2_grpc import DiffusionServiceStub
from tests.support.api import generate, violations_of
from tests.support.assets import LORAS
from tests.support.loras import to_file
from tests.support.server import running_server

AIR = "urn:air:sd1:lora:civitai:2421@43533"


@pytest.fixture(scope="module")
def channel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[grpc.Channel]:
    folder = tmp_path_factory.mktemp("beside")
    for name in ("postcard", "sepia"):
        shutil.copy(LORAS / f"{name}.safetensors", folder)
    user = {"activation text": "framed", "preferred weight": 0.6}
    (folder / "postcard.json").write_text(json.dumps(user), "utf-8")
    found = hashes(folder / "postcard.safetensors", "postcard")
    record = {
        "id": 43533,
        "modelId": 2421,
        "baseModel": "SD 1.5",
        "files": [{"hashes": {"SHA256": found.sha256.upper()}}],
    }
    (folder / "postcard.civitai.info").write_text(json.dumps(record), "utf-8")
    Image.new("RGB", (800, 400), "teal").save(folder / "postcard.preview.png")
    (folder / "sepia.json").write_bytes(b"[]")
    (folder / "sepia.preview.jpg").write_bytes(b"no picture")
    to_file(folder / "words/blob.safetensors", {"emb_params": torch.ones(2, 128)})
    to_file(folder / "words/large.safetensors", {"emb_params": torch.ones(2, 768)})
    log, words = folder / "server.log", str(folder / "words")
    with (
        running_server(log, "--lora-dir", str(folder), "--embedding-dir", words) as server,
        grpc.insecure_channel(server.target) as opened,
    ):
        yield opened


def test_the_catalog_tells_it(channel: grpc.Channel) -> None:
    """In the list by a line each, and the picture with the one file that is asked for."""
    catalog = CatalogServiceStub(channel)
    listed = {one.name: one for one in catalog.ListLoras(catalog_pb2.ListLorasRequest()).loras}
    postcard, sepia = listed["postcard"], listed["sepia"]
    assert postcard.trigger_words[0] == "framed"
    assert postcard.preferred_strength == pytest.approx(0.6)
    assert (postcard.has_thumbnail, postcard.air, postcard.base_model) == (True, AIR, "SD 1.5")
    assert (sepia.HasField("preferred_strength"), sepia.air) == (False, "")
    answer = catalog.GetLora(catalog_pb2.GetLoraRequest(name=AIR))
    assert answer.lora == postcard
    with Image.open(io.BytesIO(answer.thumbnail.data)) as image:
        assert (image.format, image.size) == ("JPEG", (256, 128))
    assert (answer.thumbnail.width, answer.thumbnail.height, list(answer.beside_warnings)) == (256, 128, [])
    broken = catalog.GetLora(catalog_pb2.GetLoraRequest(name="sepia"))
    assert not broken.HasField("thumbnail")
    assert list(broken.beside_warnings) == [
        "sepia.json is ignored: it is no JSON object",
        "sepia.preview.jpg is ignored: it is not a PNG, JPEG or WebP file",
    ]


def test_an_id_draws_what_the_name_draws(channel: grpc.Channel) -> None:
    """As a field and in a tag, to the byte; one that is not here is told with what was looked at."""
    stub = DiffusionServiceStub(channel)

    def draw(**changes: object) -> bytes:
        sampling = pb.Sampling(steps=2, seed=7)
        events = list(stub.Generate(generate(sampling=sampling, width=64, height=64, **changes)))
        return next(event.image.image.data for event in events if event.HasField("image"))

    expected = draw(prompt="a star", loras=[pb.Lora(name="postcard", strength=0.8)])
    assert draw(prompt="a star", loras=[pb.Lora(name=AIR, strength=0.8)]) == expected
    assert draw(prompt="a star <lora:civitai:2421@43533:0.8>") == expected
    with pytest.raises(grpc.RpcError) as caught:
        draw(prompt="a star", loras=[pb.Lora(name="civitai:2421@1")])
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "of its model there is @43533" in caught.value.details()


def test_a_folder_of_words(channel: grpc.Channel) -> None:
    """They are listed, drawn with their hashes in the picture, and refused where they do not fit."""
    listed = CatalogServiceStub(channel).ListEmbeddings(catalog_pb2.ListEmbeddingsRequest()).embeddings
    assert [(one.name, one.base, one.vector_count, one.fits) for one in listed] == [
        ("blob", "embedded", 2, True),
        ("large", "sd15", 2, False),
    ]
    assert "text_encoder takes vectors of 128" in listed[1].refusal
    stub = DiffusionServiceStub(channel)
    sampling = pb.Sampling(steps=2, seed=7)
    asked = generate(prompt="a (blob:1.2)", sampling=sampling, width=64, height=64)
    image = next(event.image.image for event in stub.Generate(asked) if event.HasField("image"))
    with Image.open(io.BytesIO(image.data)) as opened:
        assert f'TI hashes: "blob: {listed[0].sha256[:12]}"' in opened.info["parameters"]
    with pytest.raises(grpc.RpcError) as caught:
        list(stub.Generate(generate(prompt="large", sampling=sampling, width=64, height=64)))
    assert list(violations_of(caught.value)) == ["prompt"]
