"""A real browser before the page: Debian's Chromium, and what hands do."""

from __future__ import annotations

import base64
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from sdgrpc.client import Client
from tests.support.server import environment

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"]
MANY = "150"
"""Steps: seconds, in which something can be done to a job."""


@dataclass
class Served:
    """A server's addresses: gRPC's and the page's."""

    grpc: str
    page: str


def chromium() -> str:
    """Return the browser's path, or skip; the full run fails without it."""
    path = shutil.which("chromium")
    if path is None:
        if os.environ.get("SDGRPC_REQUIRE_ALL") == "1":
            pytest.fail("SDGRPC_REQUIRE_ALL=1, but chromium is not there")
        pytest.skip("needs chromium")
    return path


@contextmanager
def serving(*arguments: str) -> Iterator[Served]:
    """Run `serve --web` for the block; it ends well."""
    chromium()  # no server where no browser is
    command = [sys.executable, "-m", "sdgrpc", "serve", "--listen", "127.0.0.1:0", "--web", "127.0.0.1:0"]
    process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, text=True, env=environment())
    try:
        assert process.stdout
        lines = (process.stdout.readline() for _ in range(2))
        grpc, page = (line.split()[-1] for line in lines)
        yield Served(grpc, page)
    finally:
        process.terminate()
        assert process.wait(60) == 0


@contextmanager
def browsing() -> Iterator[Browser]:
    """Open a browser; its event loop ends with it, so no test beside it is async."""
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def visiting(browser: Browser, address: str, **options) -> Iterator[Page]:
    """Open the page as a new visitor, with nothing kept from before."""
    context = browser.new_context(**{"viewport": {"width": 1300, "height": 1000}} | options)
    context.set_default_timeout(30_000)
    opened = context.new_page()
    opened.goto(address)
    yield opened
    context.close()


def arrive(page: Page, address: str) -> None:
    """Open the page, and wait for it."""
    page.goto(address)
    ready(page)


def ready(page: Page) -> None:
    """Wait until the page knows the server's models."""
    page.wait_for_function("document.querySelector('#model input')?.value")


def say(page: Page, prompt: str, steps: str = "4", seed: str = "7") -> None:
    """Fill in the form; a seed that is typed is kept."""
    page.fill("#prompt textarea", prompt)
    page.fill("#steps input", steps)
    page.fill("#seed input", seed)


def until(page: Page, state: str) -> None:
    """Wait until the stage is so."""
    page.wait_for_selector(f"#stage [data-state={state}]")


def draw(page: Page) -> Image.Image:
    """Draw, and return the picture."""
    page.evaluate("document.querySelector('#stage section').dataset.old = '1'")  # until it is made anew
    page.click("#draw")
    page.wait_for_selector("#stage [data-state=done]:not([data-old])")
    page.wait_for_selector("#draw:not([disabled])")
    return shown(page)


def shown(page: Page) -> Image.Image:
    """Return the stage's first picture."""
    address = page.get_attribute("#stage figure img", "src") or ""
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))).convert("RGB")


def until_status(served: Served, running: int) -> int:
    """Wait until the server says that so many jobs run and wait: how many have finished."""
    with Client(served.grpc) as client:
        for status in client.watch_status(min_interval=0.05):
            if status.running + status.queued == running:
                return status.jobs_finished
    raise AssertionError("the watch ended")


def slide(page: Page, label: str, value: str) -> None:
    """Type the value of a slider."""
    box = page.locator("#lora-rows .block").filter(has_text=label).locator("input[type=number]").last
    box.fill(value)
    box.press("Tab")


def choose(page: Page, typed: str) -> None:
    """Find a LoRA by typing."""
    page.click("#loras input")
    page.keyboard.type(typed)
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    page.wait_for_selector(f"#lora-rows >> text=Strength of {typed}")
