"""The notebook of the documents in a real kernel, and what a cell says."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from sdgrpc.client import (
    AsyncClient,
    Client,
    DrawnImage,
    EncodedImage,
    InvalidRequestError,
    PreviewKind,
    PreviewOptions,
)
from sdgrpc.client.notebook import show, show_async, showing
from tests.support.server import running_server

NOTEBOOK = Path(__file__).parents[3] / "docs/drawing.ipynb"


class Watching(NotebookClient):  # type: ignore[misc]  # which has no types
    """Keeps the updates of displays, which otherwise overwrite each other."""

    def process_message(self, msg, cell, cell_index):
        if msg["msg_type"] == "update_display_data":
            self.__dict__.setdefault("updates", []).append(msg["content"]["data"])
        return super().process_message(msg, cell, cell_index)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory):
    with running_server(tmp_path_factory.mktemp("notebook") / "server.log") as server:
        yield server.target


@pytest.fixture
def cell(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    """Everything that a cell showed, in order."""
    seen: list[dict[str, str]] = []

    class Handle:
        def update(self, bundle: dict[str, str], *, raw: bool) -> None:
            assert raw
            seen.append(dict(bundle))

    def display(bundle: dict[str, str], *, raw: bool, display_id: bool) -> Handle:
        assert display_id
        Handle().update(bundle, raw=raw)
        return Handle()

    monkeypatch.setattr("IPython.display.display", display)
    return seen


def test_the_documented_notebook_runs(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of 20 steps brings a preview, the cell ends with the picture, and pictures show themselves."""
    monkeypatch.setenv("SDGRPC_SERVER", target)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    watching = Watching(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": "/"}})
    watching.execute()
    shown, picture, pictures = (notebook.cells[index].outputs for index in (3, 5, 6))
    with_picture = [one for one in watching.updates if "data:image/" in one["text/html"]]
    steps = {one["text/plain"].split(",")[0] for one in with_picture if one["text/plain"].startswith("step")}
    assert steps == {f"step {number} of 20" for number in range(1, 21)}
    assert shown[0]["data"]["text/plain"].startswith("done in")
    assert "seed 7" in shown[0]["data"]["text/html"]
    assert len(picture[0]["data"]["image/png"]) > 1000
    assert pictures[0]["data"]["text/html"].count("<img") == 2


def test_a_failure_stands_in_the_cell(target: str, cell: list[dict[str, str]]) -> None:
    """It is raised too."""
    with Client(target) as client, pytest.raises(InvalidRequestError):
        show(client.generate("a star", width=7))
    assert cell[0]["text/plain"] == "sending"
    assert "InvalidRequestError" in cell[-1]["text/plain"]


def test_outside_of_a_notebook_the_job_is_drawn(target: str) -> None:
    """IPython has nothing to change there, and the result comes all the same."""
    with Client(target) as client:
        result = show(client.generate("a star", steps=2, seed=4))
    assert [one.seed for one in result.images] == [4]


async def test_an_async_job(target: str, cell: list[dict[str, str]]) -> None:
    """Two pictures side by side, of the width that was asked for, with their seeds."""
    async with AsyncClient(target) as client:
        preview = PreviewOptions(PreviewKind.PICTURE)
        job = client.generate("a star", steps=2, seed=4, image_count=2, preview=preview)
        result = await show_async(job, width=99)
    assert [one.seed for one in result.images] == [4, 5]
    assert cell[-1]["text/html"].count('width="99"') == 2
    assert "seed 5" in cell[-1]["text/html"]


def test_an_interrupted_cell_cancels(target: str, cell: list[dict[str, str]]) -> None:
    """The stop button of a notebook: the server lets go of the job."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with Client(target) as client, pytest.MonkeyPatch.context() as patch:
        before = next(iter(client.watch_status())).jobs_finished
        patch.setattr(showing._Cell, "take", stop)
        with pytest.raises(KeyboardInterrupt):
            show(client.generate("a star", steps=150))
        assert cell[-1]["text/plain"] == "KeyboardInterrupt"
        for status in client.watch_status(min_interval=0.05):
            if status.running + status.queued == 0:
                assert status.jobs_finished == before
                break


def test_pictures_of_other_formats_show_themselves(target: str) -> None:
    """A WebP becomes a PNG for a notebook; an encoded image is shown as it is."""
    with Client(target) as client:
        (drawn,) = client.generate("a star", steps=1, media_type="image/webp").images()
    assert isinstance(drawn, DrawnImage)
    assert drawn._repr_png_().startswith(b"\x89PNG")
    assert isinstance(drawn.image, EncodedImage)
    assert set(drawn.image._repr_mimebundle_()) == {"image/webp", "text/plain"}


def test_without_ipython_it_says_what_to_install(target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client itself needs none."""
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with Client(target) as client, pytest.raises(ModuleNotFoundError, match="pip install ipython"):
        show(client.generate("a star", steps=1))
