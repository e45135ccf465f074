"""What lies beside LoRA files: read, and never fatal."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from sdgrpc.lora.store.beside import NOTHING, BesideFiles

INFO = {
    "id": 43533,
    "modelId": 2421,
    "trainedWords": ["smf girl, blue hair", "Ink"],
    "baseModel": "SD 1.5",
    "files": [{"id": 9, "hashes": {"SHA256": "AB" * 32, "AutoV3": "12" * 6, "AutoV2": "ABABABABAB"}}],
}
USER = {"activation text": " ink,  red   hair ,", "preferred weight": 0.7, "notes": "x"}


def put(folder: Path, **files: object) -> Path:
    """Write what lies beside `ink.safetensors`, by the endings with `_` for dots; JSON unless it is bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "ink.safetensors"
    file.write_bytes(b"x")
    for ending, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        (folder / f"ink.{ending.replace('_', '.')}").write_bytes(raw)
    return file


def test_both_records_are_read(tmp_path: Path) -> None:
    """The user's words before CivitAI's, each once; the id is made of the record's numbers."""
    file = put(tmp_path, json=USER, civitai_info=INFO, preview_png=b"png")
    found = BesideFiles().of(file)
    assert found.trigger_words == ("ink", "red hair", "smf girl", "blue hair")
    assert found.preferred_strength == 0.7
    assert (found.air, found.base_model) == ("urn:air:sd1:lora:civitai:2421@43533", "SD 1.5")
    assert found.picture == tmp_path / "ink.preview.png"
    assert found.record is not None
    assert found.record.hashes_of(0) == found.record.hashes_of(9) == {"ab" * 32, "12" * 6}
    assert found.record.hashes_of(8) == frozenset()
    assert found.warnings == ()


def test_nothing_is_beside_most_files(tmp_path: Path) -> None:
    """And of two pictures the one that is called a preview counts."""
    assert BesideFiles().of(put(tmp_path / "a")) is NOTHING
    both = put(tmp_path / "b", png=b"1", preview_webp=b"2", jpeg=b"3")
    assert BesideFiles().of(both).picture == both.parent / "ink.preview.webp"
    assert BesideFiles().of(put(tmp_path / "c", jpeg=b"3")).picture == tmp_path / "c/ink.jpeg"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "ink.json is ignored: it is no JSON"),
        (b"\xff\xfe", "ink.json is ignored: it is no JSON"),
        (b"[" * 100_000, "ink.json is ignored: it is no JSON"),
        (b"[1]", "ink.json is ignored: it is no JSON object"),
        (b" " * (1 << 20) + b"{}", "ink.json is ignored: it has more than 1,048,576 bytes"),
        ({"preferred weight": "much"}, "ink.json: its preferred weight is no number of -1000 to 1000"),
        ({"preferred weight": 1e9}, "ink.json: its preferred weight is no number of -1000 to 1000"),
        ({"preferred weight": True}, "ink.json: its preferred weight is no number of -1000 to 1000"),
        (b'{"preferred weight": NaN}', "ink.json: its preferred weight is no number of -1000 to 1000"),
        ({"preferred weight": 0, "activation text": 7}, ""),
        ({"activation text": ["x" * 300, ","]}, ""),
    ],
)
def test_what_is_wrong_is_ignored(tmp_path: Path, content: object, said: str) -> None:
    """With a warning; the record beside it is read all the same."""
    found = BesideFiles().of(put(tmp_path, json=content, civitai_info=INFO))
    assert found.preferred_strength is None
    assert found.trigger_words == ("smf girl", "blue hair", "Ink")
    assert [warning.startswith(said) for warning in found.warnings] == [True] * bool(said)


@pytest.mark.parametrize(
    "record",
    [
        {"id": "1", "modelId": 2},
        {"id": 1, "modelId": -2},
        {"id": True, "modelId": 2},
        {"id": 1},
        {"modelId": 10**30, "id": 1},
    ],
)
def test_a_record_without_ids_names_nothing(tmp_path: Path, record: dict[str, object]) -> None:
    """Its words are words all the same."""
    found = BesideFiles().of(put(tmp_path, civitai_info={"trainedWords": ["a"], "files": [3], **record}))
    assert (found.air, found.record, found.trigger_words) == ("", None, ("a",))


@pytest.mark.parametrize(
    ("base", "ecosystem"),
    [
        ("SD 1.5 LCM", "sd1"),
        ("SD 2.1 768", "sd2"),
        ("SDXL 1.0", "sdxl"),
        ("Illustrious", "illustrious"),
        (7, "other"),
    ],
)
def test_the_ecosystem_is_that_of_the_base(tmp_path: Path, base: object, ecosystem: str) -> None:
    """In the spelling of resource identifiers."""
    found = BesideFiles().of(put(tmp_path, civitai_info={"id": 1, "modelId": 2, "baseModel": base}))
    assert found.air == f"urn:air:{ecosystem}:lora:civitai:2@1"


def test_what_changes_is_read_again(tmp_path: Path) -> None:
    """And what stays is not."""
    file, beside = put(tmp_path, json=USER), BesideFiles()
    first = beside.of(file)
    assert beside.of(file) is first
    put(tmp_path, json={"preferred weight": 0.25})
    assert beside.of(file).preferred_strength == 0.25
    (tmp_path / "ink.json").unlink()
    assert beside.of(file) is NOTHING


def test_links_and_pipes_are_not_opened(tmp_path: Path) -> None:
    """A link that could lead anywhere is followed only where the operator lets links be."""
    (tmp_path / "other.json").write_text(json.dumps(USER), "utf-8")
    file = put(tmp_path)
    (tmp_path / "ink.json").symlink_to(tmp_path / "other.json")
    os.mkfifo(tmp_path / "ink.civitai.info")
    found = BesideFiles().of(file)
    assert found.preferred_strength is None
    assert len(found.warnings) == 2
    assert BesideFiles(follow_links=True).of(file).preferred_strength == 0.7
