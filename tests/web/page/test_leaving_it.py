"""A tab that is closed cancels its job before its next step, in every state; the engine's calls are held."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, async_playwright

from sdgrpc.diffusion.pictures.autoencoder import decode
from sdgrpc.engine import runner
from sdgrpc.lora.fusing.cache import FusedSets
from tests.web.conftest import Door, Gate, doored
from tests.web.page.browser import FLAGS, chromium


@pytest.fixture
async def browser() -> AsyncIterator[Browser]:
    path = chromium()
    async with async_playwright() as playwright:
        opened = await playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        await opened.close()


@pytest.fixture
async def address(door: Door) -> AsyncIterator[str]:
    async with doored(door.grpc, page=True) as root:
        yield root


async def drawing(browser: Browser, address: str, *, steps: int, count: int = 1, lora: str = "") -> Page:
    """Open the page in a tab of its own and press Draw."""
    page = await browser.new_page()
    await page.goto(address)
    await page.wait_for_function("document.querySelector('#model input')?.value")
    await page.fill("#prompt textarea", "a star")
    await page.fill("#steps input", str(steps))
    await page.fill("#count input", str(count))
    await page.locator("#guidance_scale input[type=number]").fill("1")
    if lora:
        await page.click("#loras input")
        await page.keyboard.type(lora)
        await page.keyboard.press("Enter")
        await page.keyboard.press("Escape")
        await page.wait_for_selector(f"#lora-rows >> text=Strength of {lora}")
    await page.click("#draw")
    return page


async def until_noticed(door: Door) -> None:
    """Wait until the server has seen that its caller is gone, while the engine still waits."""
    async with asyncio.timeout(60):
        await door.server._servicer.idle()


async def test_while_it_steps(browser: Browser, address: str, door: Door, steps: Gate) -> None:
    """In its first UNet call: it makes no second one."""
    page = await drawing(browser, address, steps=100)
    await steps.until_inside()
    await page.close()
    await until_noticed(door)
    steps.open.set()
    await door.until_idle()
    assert steps.count == 1


async def test_while_it_is_queued(browser: Browser, address: str, door: Door, steps: Gate) -> None:
    """Behind another page's job: it never starts."""
    await drawing(browser, address, steps=3)
    await steps.until_inside()
    second = await drawing(browser, address, steps=100)
    await door.until(lambda status: status.queued == 1)
    await second.close()
    await door.until(lambda status: status.queued == 0)
    steps.open.set()
    await door.until_idle()
    assert steps.count == 3


async def test_while_it_fuses(
    browser: Browser, address: str, door: Door, steps: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While its LoRA is fused: it makes no step."""
    fusing, acquire = Gate(), FusedSets.acquire

    def held(self, *arguments, **options):
        fusing.passes()
        return acquire(self, *arguments, **options)

    monkeypatch.setattr(FusedSets, "acquire", held)
    steps.open.set()
    page = await drawing(browser, address, steps=100, lora="night")
    await fusing.until_inside()
    await page.close()
    await until_noticed(door)
    fusing.open.set()
    await door.until_idle()
    assert steps.count == 0


async def test_while_it_decodes(
    browser: Browser, address: str, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the first of two pictures is decoded: the second is not."""
    decoding = Gate()

    def held(*arguments, **options):
        decoding.passes()
        return decode(*arguments, **options)

    monkeypatch.setattr(runner, "decode", held)
    page = await drawing(browser, address, steps=1, count=2)
    await decoding.until_inside()
    await page.close()
    await until_noticed(door)
    decoding.open.set()
    await door.until_idle()
    assert decoding.count == 1
