"""The catalog's calls in both clients, against a server whose answers are scripted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from google.protobuf.duration_pb2 import Duration

from sdgrpc import client as api
from sdgrpc.client import AsyncClient, Client, LatentFormat, LoraStrengthRange
from sdgrpc.testing.scripted_catalog import HASH, NAMES, Catalog, scripted_catalog


@pytest.fixture
def catalog() -> Iterator[Catalog]:
    with scripted_catalog() as running:
        yield running


@pytest.fixture
def client(catalog) -> Iterator[Client]:
    with Client(catalog.target) as opened:
        yield opened


def test_models(client) -> None:
    """Models come with their defaults and what turns their latents into pictures."""
    (model,) = client.list_models()
    assert (model.name, model.width, model.steps, model.resident) == ("embedded", 128, 20, True)
    assert (model.sha256, model.autov2) == (HASH, HASH[:10])
    assert model.latent_format == LatentFormat(1, 8, (1.0, 0.0, -1.0), (0.0, 0.0, 0.0))


def test_the_range_of_strengths(client) -> None:
    """As decimals, not as the float32 that they are sent as."""
    assert client.lora_strength_range() == LoraStrengthRange(-0.7, 2.0)


def test_every_page_of_loras(client, catalog) -> None:
    """The pages are read one after the other, with the same filters and the token of the page before."""
    files = list(client.list_loras(base="sd15", fitting_only=True, page_size=2))
    assert [file.name for file in files] == NAMES
    assert files[0].modified == datetime(1970, 1, 2, tzinfo=UTC)
    assert files[0].trigger_words == ("w",)
    assert files[0].autov3 == HASH[:12]
    assert (files[0].preferred_strength, files[0].has_thumbnail) == (0.7, True)
    assert (files[0].air, files[0].base_model) == ("urn:air:sd1:lora:civitai:1@2", "SD 1.5")
    assert [request.page_token for request in catalog.asked] == ["", "2"]
    assert {(request.base, request.fitting_only, request.page_size) for request in catalog.asked} == {
        ("sd15", True, 2)
    }


def test_textual_inversions(client, catalog) -> None:
    """With the model that they are judged against."""
    (face,) = client.list_embeddings(model="m", fitting_only=True)
    assert (face.name, face.sha256, face.base, face.vector_count) == ("face", HASH, "sd15", 2)
    assert (face.fits, face.refusal, face.modified) == (True, "", datetime(1970, 1, 2, tzinfo=UTC))
    assert (catalog.asked[0].model, catalog.asked[0].fitting_only) == ("m", True)


def test_one_lora(client, catalog) -> None:
    """An alpha of 0 is not an alpha that is missing; a hash is as good as a name."""
    details = client.get_lora(sha256="ab", include_modules=True)
    assert [(module.alpha, module.delta_norm) for module in details.modules] == [(0.0, None), (None, 2.0)]
    assert details.metadata == {"k": "v"}
    assert details.thumbnail == api.EncodedImage(b"jpeg", "image/jpeg", 2, 1)
    assert details.beside_warnings == ("ink.json is ignored: it is no JSON",)
    assert catalog.asked[0].WhichOneof("source") == "sha256"
    with pytest.raises(ValueError, match="by its name or by its sha256"):
        client.get_lora()
    with pytest.raises(api.NotFoundError):
        client.get_lora("missing")


def test_an_upload(client, catalog, tmp_path) -> None:
    """A file is sent in chunks behind its hash; a server that has it ends the upload at once."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(bytes(range(256)) * 9000)
    assert client.upload_lora(path).file.name == "mine.safetensors"
    assert client.upload_lora(path, name="ink").existed
    with pytest.raises(FileNotFoundError):
        client.upload_lora(tmp_path / "nothing")
    assert len(catalog.asked) == 2


def test_preparing(client, catalog) -> None:
    """A set is named as in a drawing call."""
    prepared = client.prepare_loras(["ink:0.5", "sepia"])
    assert (prepared.lora_set_id, prepared.fuse_seconds) == ("set", 0.25)
    assert [lora.name for lora in catalog.asked[0].loras] == ["ink", "sepia"]


def test_planning(client, catalog) -> None:
    """A plan is asked for as a job is, and is a record."""
    plan = client.plans.generate("a star", loras=["ink:0.8"], seed=7)
    assert (plan.unet_steps, plan.estimated_steps_seconds, plan.estimated_decoding_seconds) == (11, 2.0, None)
    assert (plan.accepted.sampling.seed, plan.loras[0].text_encoder_strength) == (7, 0.5)
    assert catalog.asked[0].generate.loras[0].name == "ink"


def test_watching(client, catalog) -> None:
    """Reports come as records; closing the iterator ends the call on the server."""
    watch = client.watch_status(min_interval=0.5)
    first, second = next(watch), next(watch)
    assert (first.running, second.running) == (0, 1)
    assert first.resident_models == {"embedded": 7}
    assert first.lora_sets[0].loras[0].strength == 0.5
    watch.close()
    assert catalog.stopped.wait(10)
    assert catalog.asked[0].min_interval == Duration(nanos=500_000_000)


async def test_the_same_for_asyncio(catalog, tmp_path) -> None:
    """Every call has its awaited twin."""
    path = tmp_path / "mine.safetensors"
    path.write_bytes(bytes(3 << 20))
    async with AsyncClient(catalog.target) as client:
        assert (await client.list_models())[0].name == "embedded"
        assert [file.name async for file in client.list_loras()] == NAMES
        assert (await client.lora_strength_range()).maximum == 2.0
        assert (await client.get_lora("ink")).file.name == "ink"
        assert not (await client.upload_lora(path)).existed
        assert (await client.prepare_loras(["ink"])).lora_set_id == "set"
        assert (await client.plans.generate("a star")).unet_steps == 11
        async for report in client.watch_status():
            if report.running == 1:
                break
        with pytest.raises(api.NotFoundError):
            await client.get_lora("missing")
