"""Uploads whose call goes away."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from sdgrpc.domain import UploadHeader
from sdgrpc.engine.lora_calls import EngineCatalog
from sdgrpc.lora.store.library import LoraLibrary
from sdgrpc.lora.store.upload import IncomingFile
from sdgrpc.lora.store.upload_store import UploadStore


async def test_a_call_that_goes_while_its_upload_opens_leaves_nothing(tmp_path: Path) -> None:
    """A thread opens it, and nobody is there to take it: it is aborted, so that it holds no room."""
    store = UploadStore(tmp_path, 100, lambda _path, _name: None)
    library = LoraLibrary([], uploads=store)
    begun, go_on = threading.Event(), threading.Event()
    begin = library.begin_upload

    def slow(header: UploadHeader, max_bytes: int):
        begun.set()
        assert go_on.wait(30)
        return begin(header, max_bytes)

    library.begin_upload = slow  # type: ignore[method-assign]
    catalog = EngineCatalog.__new__(EngineCatalog)
    catalog._library, catalog._max_upload_bytes = library, 100
    catalog._supervisor = SimpleNamespace(run=lambda _shape, work: work())  # type: ignore[assignment]
    with ThreadPoolExecutor(1) as catalog._writers:
        header = UploadHeader("one", hashlib.sha256(b"content").hexdigest(), 7)
        task = asyncio.ensure_future(catalog.begin_upload(header))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        go_on.set()
    assert [path.name for path in sorted(tmp_path.iterdir())] == [".lock"]  # noqa: ASYNC240 - small
    assert not store._written
    opened = begin(header, 100)
    assert isinstance(opened, IncomingFile)
    opened.abort()
