"""CivitAI's ids name local files, by their records and hashes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors import safe_open

from sdgrpc.domain import LoraRef
from sdgrpc.errors import LoraNotFound
from sdgrpc.lora.files.reading import hashes
from sdgrpc.lora.store.air import Air
from sdgrpc.lora.store.library import LoraLibrary
from tests.support.loras import LINEAR, kohya_file, to_file


def lora(path: Path, seed: int = 1) -> Path:
    return to_file(path, kohya_file(LINEAR, seed=seed))


def record(path: Path, *, model: int = 2421, version: int = 43533, files: object = ()) -> None:
    path.write_text(json.dumps({"id": version, "modelId": model, "files": files}), "utf-8")


def of(path: Path, number: int = 1) -> dict[str, object]:
    """What a record says of a file that it was made for."""
    found = hashes(path, "x")
    return {"id": number, "hashes": {"SHA256": found.sha256.upper(), "AutoV3": found.autov3}}


def find(folder: Path, name: str) -> str:
    return LoraLibrary([folder]).find(LoraRef(name=name)).name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("urn:air:sd1:lora:civitai:2421@43533", Air(2421, 43533, 0, "sd1", "lora")),
        ("URN:AIR:SDXL:LoRA:civitai:1@2.safetensor", Air(1, 2, 0, "sdxl", "lora")),
        ("air:sdxl:lycoris:civitai:1@2+3", Air(1, 2, 3, "sdxl", "lycoris")),
        ("sdxl:checkpoint:civitai:1@2", Air(1, 2, 0, "sdxl", "checkpoint")),
        ("lora:civitai:1@2", Air(1, 2, 0, "", "lora")),
        ("civitai:1@2", Air(1, 2)),
        ("civitai:1", Air(1)),
        ("civitai:x", None),
        ("urn:air:sd1:lora:huggingface:a/b", None),
        ("postcard", None),
        ("civitai:1@2:0.8", None),
    ],
)
def test_the_forms_of_an_id(text: str, expected: Air | None) -> None:
    """All that CivitAI's parsers take; the shortest is the model alone."""
    assert Air.parse(text) == expected


@pytest.mark.parametrize(
    "name", ["urn:air:sd1:lora:civitai:2421@43533", "civitai:2421@43533", "civitai:2421"]
)
@pytest.mark.parametrize("told", ["hashes", "AutoV3 alone", "no hashes"])
def test_the_file_beside_the_record(tmp_path: Path, name: str, told: str) -> None:
    """By its ids, where no hash says that it is another file."""
    file = lora(tmp_path / "styles/ink.safetensors")
    lora(tmp_path / "ink.safetensors", seed=2)
    files = {"hashes": [of(file)], "no hashes": []}.get(
        told, [{"hashes": {"SHA256": "0" * 64, "AutoV3": hashes(file, "x").autov3}}]
    )
    record(tmp_path / "styles/ink.civitai.info", files=files)
    record(tmp_path / "other.civitai.info", model=5, version=6)
    assert find(tmp_path, name) == "styles/ink"


def test_a_file_that_was_renamed(tmp_path: Path) -> None:
    """Is found by its hash: the SHA-256, or the one that stays where metadata were changed."""
    file = lora(tmp_path / "new name.safetensors")
    lora(tmp_path / "old.safetensors", seed=2)
    record(tmp_path / "old.civitai.info", files=[of(file)])
    assert find(tmp_path, "civitai:2421@43533") == "new name"
    with safe_open(file, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
    to_file(file, tensors, {"ss_comment": "edited"})
    assert find(tmp_path, "civitai:2421@43533") == "new name"


def test_one_of_several_files_of_a_version(tmp_path: Path) -> None:
    """By the number of the file."""
    files = [lora(tmp_path / f"{name}.safetensors", seed) for seed, name in enumerate(("a", "b"))]
    record(tmp_path / "a.civitai.info", files=[of(files[0], 11), of(files[1], 12)])
    assert find(tmp_path, "civitai:2421@43533") == "a"
    assert find(tmp_path, "civitai:2421@43533+12") == "b"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("civitai:1@2", ["none of the 3 .civitai.info files", "put its record beside the file"]),
        ("civitai:2421@1", ["of its model there is @7, @43533"]),
        ("civitai:2421", ["in the versions 7, 43533; name one, as @7"]),
        ("civitai:2421@43533", ["old.civitai.info is its record", "no file here has a hash"]),
        ("urn:air:sd1:checkpoint:civitai:2421@43533", ["of the type 'checkpoint', which is no LoRA"]),
    ],
)
def test_what_is_not_here(tmp_path: Path, name: str, words: list[str]) -> None:
    """Says what was looked at."""
    lora(tmp_path / "old.safetensors")
    lora(tmp_path / "seven.safetensors", seed=7)
    record(tmp_path / "old.civitai.info", files=[{"hashes": {"SHA256": "a" * 64}}])
    record(tmp_path / "seven.civitai.info", version=7)
    record(tmp_path / "third.civitai.info", model=3)
    (tmp_path / "broken.civitai.info").write_bytes(b"{")
    with pytest.raises(LoraNotFound) as caught:
        find(tmp_path, name)
    assert all(word in caught.value.message for word in (name, *words)), caught.value.message


def test_a_name_goes_before_an_id(tmp_path: Path) -> None:
    """A file that is called so is what its name says."""
    lora(tmp_path / "civitai:1@2.safetensors")
    assert find(tmp_path, "civitai:1@2") == "civitai:1@2"
