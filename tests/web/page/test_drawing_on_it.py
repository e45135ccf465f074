"""The page in Debian's Chromium, before a server of its own: `serve --web` with the embedded model."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import ImageChops
from playwright.sync_api import Browser, Page

from tests.support.assets import LORAS
from tests.support.server import environment
from tests.web.page.browser import (
    MANY,
    Served,
    arrive,
    choose,
    draw,
    ready,
    say,
    serving,
    shown,
    slide,
    until,
    until_status,
    visiting,
)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving("--lora-dir", str(LORAS)) as addresses:
        yield addresses


@pytest.fixture
def page(browser: Browser, served: Served) -> Iterator[Page]:
    with visiting(browser, served.page) as opened:
        ready(opened)
        yield opened


def test_asks_no_other_host(browser: Browser, served: Served) -> None:
    """Nothing that the browser asks for, in drawing a picture, is of another host."""
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    arrive(page, served.page)
    say(page, "a star")
    draw(page)
    context.close()
    assert len(asked) > 10
    assert [one for one in asked if not one.startswith((f"{served.page}/", "data:", "blob:"))] == []


def test_a_preview_comes_before_the_last_step(page: Page) -> None:
    """The stage has a picture while steps are left, and parameters once it is done."""
    say(page, "a red star", MANY)
    page.click("#draw")
    page.wait_for_function("""() => {
      const stage = document.querySelector("#stage [data-state=drawing]:has(figure img)");
      return stage && +stage.dataset.step < +stage.dataset.steps;
    }""")
    until(page, "done")
    page.wait_for_selector("#text textarea")
    assert "Seed: 7" in page.input_value("#text textarea")


def test_cancel_frees_the_engine(page: Page, served: Served) -> None:
    """The server has no job any more, and finished none."""
    before = until_status(served, 0)
    say(page, "a red star", MANY)
    page.click("#draw")
    page.wait_for_selector("#stage [data-state=drawing] figure img")
    page.click("#cancel")
    until(page, "cancelled")
    assert until_status(served, 0) == before


def test_a_closed_tab_cancels_its_job(browser: Browser, served: Served) -> None:
    """Nobody presses anything; the page is gone."""
    before = until_status(served, 0)
    context = browser.new_context()
    page = context.new_page()
    arrive(page, served.page)
    say(page, "a red star", MANY)
    page.fill("#count input", "4")
    page.click("#draw")
    page.wait_for_selector("#stage [data-state=drawing] figure img")
    page.close()
    assert until_status(served, 0) == before
    context.close()


def test_a_reload_in_mid_job(page: Page, served: Served) -> None:
    """The old page's job ends, and the new page draws."""
    before = until_status(served, 0)
    say(page, "a red star", MANY)
    page.fill("#count input", "4")
    page.click("#draw")
    page.wait_for_selector("#stage [data-state=drawing] figure img")
    page.reload()
    ready(page)
    assert until_status(served, 0) == before
    say(page, "a red star")
    assert draw(page).size == (128, 128)


def test_a_violation_stands_at_its_field(page: Page) -> None:
    """What the server says of the width stands at the width; the next drawing takes it off."""
    say(page, "a star")
    page.fill("#width input", "100")
    page.click("#draw")
    until(page, "failed")
    page.wait_for_selector("#width.wrong")
    assert "multiple of 8" in page.inner_text("#width")
    assert page.locator(".wrong").count() == 1
    page.fill("#width input", "128")
    draw(page)
    page.wait_for_selector("#width:not(.wrong)")


def test_a_second_pass_enlarges_the_picture(page: Page) -> None:
    """The fold's scale makes the picture larger; its parameters say so."""
    say(page, "a red star")
    small = draw(page)
    page.click("#second_pass button")
    page.fill("#second_scale input[type=number]", "1.5")
    page.press("#second_scale input[type=number]", "Tab")
    large = draw(page)
    assert large.width == small.width * 3 // 2
    assert "Hires upscale: 1.5" in page.input_value("#text textarea")


def test_a_lora_moves_the_picture(page: Page) -> None:
    """Found by typing, it changes the picture, its report is there, and the browser keeps both pictures."""
    say(page, "a red star")
    plain = draw(page)
    choose(page, "night")
    moved = draw(page)
    assert ImageChops.difference(plain, moved).getbbox()
    assert re.search(r"night\s+1 / 1\s+\d+ unet", page.inner_text("#report"))
    for name in ("Strength of night", "Text encoder of night"):
        slide(page, name, "0")
    assert ImageChops.difference(plain, draw(page)).getbbox() is None
    page.reload()
    ready(page)
    page.wait_for_function("document.querySelectorAll('#gallery img').length === 3")


def test_a_lora_in_some_of_the_steps(page: Page) -> None:
    """Its sliders say which; the report tells them, and with an end before the start so does the mark."""
    say(page, "a red star", "8")
    choose(page, "night")
    whole = draw(page)
    slide(page, "Start of night", "0.25")
    slide(page, "End of night", "0.75")
    part = draw(page)
    assert ImageChops.difference(whole, part).getbbox()
    assert re.search(r"in steps 3 to 6", page.inner_text("#report"))
    assert "<lora:night:1:start=0.25:end=0.75>" in page.input_value("#text textarea")
    slide(page, "End of night", "0.2")
    page.click("#draw")
    until(page, "failed")
    page.wait_for_selector("#loras.wrong")


def test_a_painted_mask_keeps_the_rest(page: Page) -> None:
    """A stroke of the mouse in the middle redraws there and leaves the corners as they were."""
    say(page, "a red star on a blue background", "20")
    before = draw(page)
    page.click("#to_mask")
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    page.wait_for_selector("#editor [aria-label='Brush']")
    page.locator("#editor [aria-label='Brush']").first.click()
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box
    middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(middle[0] - 20, middle[1])
    page.mouse.down()
    page.mouse.move(middle[0] + 20, middle[1], steps=8)
    page.mouse.up()
    page.fill("#prompt textarea", "a green heart on a white background")
    after = draw(page)
    changed = ImageChops.difference(before, after).convert("L")
    assert changed.getbbox()
    for corner in ((0, 0, 24, 24), (104, 0, 128, 24), (0, 104, 24, 128), (104, 104, 128, 128)):
        assert changed.crop(corner).getbbox() is None


def test_a_pictures_parameters_come_back(page: Page, tmp_path: Path) -> None:
    """A picture that is brought to a fresh page brings its prompt, seed, steps and LoRA."""
    say(page, "a yellow heart", "5", "1234")
    choose(page, "sepia")
    draw(page)
    with page.expect_download() as download:
        page.click("#report a")
    saved = tmp_path / download.value.suggested_filename
    download.value.save_as(saved)
    assert saved.name == "1234.png"
    page.reload()
    ready(page)
    page.set_input_files("input[type=file]:has(+ #from_file)", saved)
    page.wait_for_function("document.querySelector('#prompt textarea').value === 'a yellow heart'")
    assert (page.input_value("#seed input"), page.input_value("#steps input")) == ("1234", "5")
    page.wait_for_selector("#lora-rows >> text=Strength of sepia")


def test_a_strip_leads_one_lora(page: Page) -> None:
    """Five pictures, the first as without the LoRA, each different."""
    say(page, "a red star")
    plain = draw(page)
    choose(page, "stripes")
    page.click("#strip")
    page.wait_for_selector("#stage [data-state=done] figcaption >> text=stripes 1")
    sources = [one.get_attribute("src") for one in page.locator("#stage figure img").all()]
    assert len(set(sources)) == 5
    assert ImageChops.difference(plain, shown(page)).getbbox() is None


def test_an_open_page_does_not_hold_the_doors_end(browser: Browser, served: Served) -> None:
    """`sdgrpc web` ends with a page open, without cutting anything off after its patience."""
    command = [sys.executable, "-m", "sdgrpc", "web", "--server", served.grpc, "--listen", "127.0.0.1:0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=environment()) as process:
        assert process.stdout
        with visiting(browser, process.stdout.readline().split()[-1]) as page:
            ready(page)
            process.terminate()
            _, said = process.communicate(timeout=60)
    assert "exceeded" not in said
    assert "Traceback" not in said
