"""Pages of files, and everything about one."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from sdgrpc.domain import LoraQuery, LoraRef, UploadHeader
from sdgrpc.errors import LoraNotFound
from sdgrpc.lora.bases import detect, placement
from sdgrpc.lora.bases.architectures import index, known_bases
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing import inspect as inspect_module
from sdgrpc.lora.describing.listing import LoraCatalog
from sdgrpc.lora.store.checking import check
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.lora.store.upload import IncomingFile
from sdgrpc.lora.store.upload_store import UploadStore
from tests.support.assets import LORAS
from tests.support.files import BytesRead

EMBEDDED = Target(index("embedded"), "embedded")
SDXL = Target(index("sdxl"), "sdxl")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two LoRAs for the embedded model, and a file that is none."""
    folder = tmp_path / "loras"
    folder.mkdir()
    for name in ("postcard", "sepia"):
        shutil.copy(LORAS / f"{name}.safetensors", folder)
    (folder / "broken.safetensors").write_bytes(b"nothing much")
    return folder


def query(**changes) -> LoraQuery:
    return LoraQuery(**{"model": "m", "limit": 10, **changes})


def names(page) -> list[str]:
    return [info.name for info in page.loras]


def test_files_are_told_by_name_with_what_is_wrong(folder: Path) -> None:
    """A broken one is listed too, with the reader's words."""
    page = LoraCatalog(LoraLibrary([folder])).page(query(), EMBEDDED)
    assert names(page) == ["broken", "postcard", "sepia"]
    broken, postcard, _ = page.loras
    assert (broken.base, broken.fits) == ("unknown", False)
    assert "broken" in broken.refusal
    assert (postcard.base, postcard.fits) == ("embedded", True)
    assert postcard.sha256 == hashlib.sha256((folder / "postcard.safetensors").read_bytes()).hexdigest()
    assert not page.more


def test_filters_and_limits(folder: Path) -> None:
    """`more` only where a further file passes the filters."""
    catalog = LoraCatalog(LoraLibrary([folder]))
    assert names(catalog.page(query(fitting_only=True), EMBEDDED)) == ["postcard", "sepia"]
    assert names(catalog.page(query(base="unknown"), EMBEDDED)) == ["broken"]
    assert not catalog.page(query(base="unknown", limit=1), EMBEDDED).more
    first = catalog.page(query(limit=1, fitting_only=True), EMBEDDED)
    assert (names(first), first.more) == (["postcard"], True)
    assert names(catalog.page(query(after="postcard"), EMBEDDED)) == ["sepia"]
    assert names(catalog.page(query(after="q"), EMBEDDED)) == ["sepia"]


def test_files_are_judged_by_the_model_asked_about(folder: Path) -> None:
    """The same catalog tells of several, one after the other."""
    catalog = LoraCatalog(LoraLibrary([folder]))
    for _ in range(2):
        assert not catalog.page(query(model="xl", fitting_only=True), SDXL).loras
        assert len(catalog.page(query(model="small", fitting_only=True), EMBEDDED).loras) == 2


def test_a_file_is_read_again_only_after_a_change(folder: Path, bytes_read: BytesRead) -> None:
    """Thousands of files cost nothing the second time."""
    catalog = LoraCatalog(LoraLibrary([folder]))
    catalog.page(query(), EMBEDDED)
    for name in ("broken", "postcard", "sepia"):  # its header, and its content for the hash
        assert bytes_read.openings(folder / f"{name}.safetensors") == 2
    bytes_read.clear()
    catalog.page(query(), EMBEDDED)
    assert bytes_read.names() == []
    (folder / "broken.safetensors").write_bytes(b"something else that is longer")
    catalog.page(query(), EMBEDDED)
    assert bytes_read.names() == ["broken.safetensors"]


def test_details_open_a_header_once(folder: Path, bytes_read: BytesRead) -> None:
    """Once the library knows a file's hash; with modules as without, since it keeps what it read."""
    library, path = LoraLibrary([folder]), folder / "sepia.safetensors"
    catalog, ref = LoraCatalog(library), LoraRef(1, 1, name="sepia")
    for include_modules, openings in ((False, 2), (False, 1), (True, 1)):
        bytes_read.clear()
        details = catalog.details(ref, "m", EMBEDDED, include_modules=include_modules)
        assert len(details.modules) == (65 if include_modules else 0)
        assert bytes_read.openings(path) == openings
    assert bytes_read.of(path) < path.stat().st_size / 10  # the header alone


def test_a_file_is_tried_on_the_bases_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a file's details each known base is asked once, and the model once."""
    asked: Counter[str] = Counter()
    known = {id(index(base)): base for base in known_bases()}
    original = placement.place

    def counted(adapter, names):
        asked[known[id(names)]] += 1
        return original(adapter, names)

    for module in (detect, inspect_module):
        monkeypatch.setattr(module, "place", counted)
    catalog = LoraCatalog(LoraLibrary([folder]))
    catalog.details(LoraRef(1, 1, name="sepia"), "m", EMBEDDED, include_modules=False)
    assert asked == Counter({"sd15": 1, "sd2": 1, "sdxl": 1, "embedded": 2})


def test_nobody_is_waited_for_who_has_gone(folder: Path) -> None:
    """A page that is unwanted ends before its next file."""
    answers = iter([False, True])
    page = LoraCatalog(LoraLibrary([folder])).page(query(), EMBEDDED, lambda: next(answers))
    assert names(page) == ["broken"]


def test_everything_about_a_file(folder: Path) -> None:
    """Modules with their norms if asked; of a broken file what can be said."""
    catalog = LoraCatalog(LoraLibrary([folder]))
    details = catalog.details(LoraRef(1, 1, name="sepia"), "m", EMBEDDED, include_modules=True)
    assert (details.tensor_count, details.module_count) == (130, 65)
    assert len(details.modules) == 65
    assert all(module.delta_norm for module in details.modules)
    assert "ss_tag_frequency" in details.metadata
    plain = catalog.details(LoraRef(1, 1, name="sepia"), "m", EMBEDDED, include_modules=False)
    assert plain.modules == ()
    broken = catalog.details(LoraRef(1, 1, name="broken"), "m", EMBEDDED, include_modules=True)
    assert (broken.tensor_count, broken.info.fits) == (0, False)
    with pytest.raises(LoraNotFound):
        catalog.details(LoraRef(1, 1, name="none"), "m", EMBEDDED, include_modules=False)


def test_uploads_stand_among_the_others(folder: Path, tmp_path: Path) -> None:
    """A folder's file goes before an upload of its name; an alias finds the content wherever it is."""
    store = UploadStore(tmp_path / "uploads", 1 << 20, check)
    content = (folder / "sepia.safetensors").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    upload = IncomingFile(store, UploadHeader("brown", sha256, len(content)))
    upload.write(content)
    upload.commit()
    (folder / "sepia.safetensors").unlink()
    library = LoraLibrary([folder], uploads=store)
    assert names(LoraCatalog(library).page(query(), EMBEDDED)) == ["broken", "brown", "postcard"]
    assert library.find(LoraRef(1, 1, name="brown.safetensors")).adapter().modules
    assert library.find(LoraRef(1, 1, sha256=sha256)).name == "brown"
    postcard = library.find(LoraRef(1, 1, name="postcard"))
    store.name("card", postcard.sha256)
    assert library.find(LoraRef(1, 1, name="card")).path == postcard.path
    shutil.copy(LORAS / "postcard.safetensors", folder / "brown.safetensors")
    assert library.find(LoraRef(1, 1, name="brown")).sha256 == postcard.sha256
    store.close()
