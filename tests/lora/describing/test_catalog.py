"""Pages of files, and everything about one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from sdgrpc.domain import LoraQuery, LoraRef, UploadHeader
from sdgrpc.errors import LoraNotFound
from sdgrpc.lora.bases.architectures import index
from sdgrpc.lora.bases.target import Target
from sdgrpc.lora.describing import catalog as catalog_module
from sdgrpc.lora.describing.catalog import LoraCatalog
from sdgrpc.lora.store.checking import check
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.lora.store.upload import Upload
from sdgrpc.lora.store.upload_store import UploadStore
from tests.support.assets import LORAS

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


def test_a_file_is_read_again_only_after_a_change(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of files cost nothing the second time."""
    catalog = LoraCatalog(LoraLibrary([folder]))
    catalog.page(query(), EMBEDDED)
    read: list[str] = []
    real = catalog_module.summarize

    def counted(path: Path, name: str, **options):
        read.append(name)
        return real(path, name, **options)

    monkeypatch.setattr(catalog_module, "summarize", counted)
    catalog.page(query(), EMBEDDED)
    assert read == []
    (folder / "broken.safetensors").write_bytes(b"something else that is longer")
    catalog.page(query(), EMBEDDED)
    assert read == ["broken"]


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
    upload = Upload(store, UploadHeader("brown", sha256, len(content)))
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
