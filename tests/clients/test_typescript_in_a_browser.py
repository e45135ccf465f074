"""The TypeScript client in a real browser: a page of another origin draws through Envoy."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from sdgrpc.testing import draw_script, hang_script, invalid_script, scripted_server
from tests.clients.conftest import ROOT, install_typescript, require_client
from tests.support.envoy import program, running_envoy

FOLDER = ROOT / "clients/typescript"
LIBRARIES = ("@bufbuild/protobuf", "@connectrpc/connect", "@connectrpc/connect-web", "@noble/hashes")
PAGE = """
<!doctype html>
<script type="importmap">{"imports": IMPORTS}</script>
<script type="module">
import { Client, PreviewKind, blobOf, lora } from "/dist/src/index.js";
const told = {};
try {
  const client = new Client("http://TARGET", { token: "s3cret" });
  const preview = { kind: PreviewKind.PICTURE };
  const request = { prompt: "draw", loras: [lora("postcard", 0.75)], output: { preview } };
  told.kinds = [];
  for await (const event of client.generate(request, { timeoutMs: 30000 })) {
    told.kinds.push(event.kind);
    if (event.kind === "image") {
      const bitmap = await createImageBitmap(blobOf(event.value.image));
      told.size = [bitmap.width, bitmap.height];
    }
  }
  told.violations = await client.generate({ prompt: "refuse" }).images().catch((error) => error.violations);
  for await (const event of client.generate({ prompt: "hang" })) {
    told.left = event.kind;
    break;
  }
} catch (error) {
  told.error = `${error}`;
}
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>
"""


class Site(SimpleHTTPRequestHandler):
    """The page and the client's files, as any web server has them; what the page tells comes back."""

    def __init__(self, page: bytes, told: queue.Queue[Any], *arguments: Any, **options: Any) -> None:
        self._page, self._told = page, told
        super().__init__(*arguments, directory=str(FOLDER), **options)

    def do_GET(self) -> None:
        if self.path != "/":
            super().do_GET()
            return
        self._answer(self._page, "text/html")

    def do_POST(self) -> None:
        self._told.put(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self._answer(b"", "text/plain")

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def imports() -> dict[str, str]:
    """Where a browser finds the libraries, as their packages say."""
    found = {}
    for name in LIBRARIES:
        place = FOLDER / "node_modules" / name
        for key, exported in json.loads((place / "package.json").read_text("utf-8"))["exports"].items():
            target = exported.get("import", "") if isinstance(exported, dict) else exported
            if target.endswith(".js"):
                found[name + key[1:]] = f"/node_modules/{name}/{target.removeprefix('./')}"
    return found


@contextmanager
def browser(folder: Path, address: str) -> Iterator[None]:
    """Have Debian's Chromium open a page."""
    found = shutil.which("chromium")
    if found is None:
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail("SDGRPC_REQUIRE_ALL=1, but chromium is not there")
        pytest.skip("needs chromium")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    options += ["--no-first-run", "--disable-background-networking", f"--user-data-dir={folder}"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen([found, *options, address], stdout=log, stderr=log, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def test_a_page_draws(tmp_path: Path) -> None:
    """Events, a picture, a refusal's fields; leaving the loop cancels; where the call belongs is told."""
    require_client("typescript")
    program()
    install_typescript()
    headers: list[dict[str, str]] = []
    scripts = {"draw": draw_script(3), "refuse": invalid_script(), "hang": hang_script(Event())}

    def script(request, context):
        headers.append(dict(context.invocation_metadata()))
        yield from scripts[request.prompt](request, context)

    envoy_place, browser_place = tmp_path / "envoy", tmp_path / "browser"
    envoy_place.mkdir()
    browser_place.mkdir()
    with scripted_server(script) as server:
        server.serve()
        with running_envoy(envoy_place, [server.target]) as envoy:
            page = PAGE.replace("IMPORTS", json.dumps(imports())).replace("TARGET", envoy.target)
            told: queue.Queue[Any] = queue.Queue()
            site = ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, page.encode(), told))
            Thread(target=site.serve_forever, daemon=True).start()
            with browser(browser_place, f"http://127.0.0.1:{site.server_port}/"):
                found = told.get(timeout=60)
                assert found == {
                    "kinds": ["accepted", "prepared", *3 * ["progress"], "image", "finished"],
                    "size": [8, 8],
                    "violations": [
                        {"field": "sampling.steps", "description": "999 is above 150"},
                        {"field": "loras[1].strength", "description": "1.5 is above 1.0"},
                    ],
                    "left": "accepted",
                }
                assert server.cancelled.wait(30)
            site.shutdown()
    assert headers[0]["x-sdgrpc-lora-set"] == "0ac6d11f55877e080b950120876286d9"
    assert headers[0]["authorization"] == "Bearer s3cret"
