"""The page of an atlas in a real browser, opened as a file, as people do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from browsing import browser as browser  # noqa: PLC0414 - a fixture
from playwright.sync_api import Browser, Page, expect

from streamdream.atlas.making import make_atlas
from streamdream.atlas.options import AtlasOptions
from streamdream.frame import Image as Picture
from streamdream.frame import to_pixels

LAYERS = ("stem", "block1.expand", "block1", "block3", "block5.expand", "block8", "block9")
LAYERS += ("block10", "head")
LOADED = "[...document.images].every((i) => i.complete && (i.naturalWidth > 0 || !i.src))"
WIDTHS = {"wide": (1280, 800), "phone": (390, 844)}


@pytest.fixture(scope="module")
def written(photo: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("page")
    source, target = folder / "what's <i>this<b>  &amp;.png", folder / "atlas.html"
    Image.fromarray(to_pixels(photo)).save(source)
    options = AtlasOptions(layers=LAYERS, work_size=32, octaves=1, steps=1)
    make_atlas(str(source), target, options)
    return target


Open = Callable[..., Page]


@pytest.fixture
def opened(browser: Browser, written: Path) -> Generator[Open]:
    """Opens the page; at the end nothing may have been complained of, or asked of anybody."""
    contexts, wrong, asked = [], [], []

    def open_page(width: str = "wide", script: str = "") -> Page:
        w, h = WIDTHS[width]
        context = browser.new_context(
            viewport={"width": w, "height": h}, permissions=["clipboard-read", "clipboard-write"]
        )
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(8000)
        page.on("console", lambda line: wrong.append(line.text))
        page.on("pageerror", lambda fault: wrong.append(str(fault)))
        page.on("request", lambda request: asked.append(request.url))
        if script:
            page.add_init_script(script)
        page.goto(written.as_uri())
        page.wait_for_function(LOADED)
        return page

    try:
        yield open_page
        assert wrong == []
        assert {url for url in asked if not url.startswith("data:")} == {written.as_uri()}
    finally:
        for context in contexts:
            context.close()


def clipboard(page: Page) -> str:
    return page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize("width", WIDTHS)
def test_all_pictures_are_shown_and_nothing_hangs_over(opened: Open, width: str) -> None:
    page = opened(width)
    expect(page.locator(".plate")).to_have_count(len(LAYERS))
    expect(page.locator("h1")).to_have_text("what's <i>this<b> &amp;.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width][0]
    for place in range(len(LAYERS)):
        box = page.locator(".show img").nth(place).bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["width"] / box["height"] == pytest.approx(160 / 120, rel=0.02)
    page.locator(".show").first.click()
    assert page.evaluate("document.querySelector('dialog').scrollWidth") <= WIDTHS[width][0]
    large = page.locator("#dream").bounding_box()
    assert large is not None
    assert large["width"] > 0.8 * WIDTHS["phone"][0]
    assert large["y"] + large["height"] <= WIDTHS[width][1]


def test_commands_are_copied_whole(opened: Open, written: Path) -> None:
    page = opened()
    page.get_by_role("button", name="Copy the command of block3").click()
    expect(page.locator(".plate").nth(3).locator(".copy")).to_have_text("copied")
    words = shlex.split(clipboard(page))
    assert words[0] == "streamdream"
    assert words[1] == str(written.parent / "what's <i>this<b>  &amp;.png")
    assert words[words.index("--layers") + 1] == "block3"
    expect(page.locator(".plate").nth(3).locator(".copy")).to_have_text("copy")


def test_commands_are_copied_where_a_page_has_no_clipboard(opened: Open) -> None:
    reader = opened()
    page = opened(script="delete Navigator.prototype.clipboard")
    assert page.evaluate("navigator.clipboard === undefined")
    page.get_by_role("button", name="Copy the command of block8").click()
    expect(page.locator(".copy.done")).to_have_text("copied")
    reader.bring_to_front()
    assert "--layers block8" in clipboard(reader)
    page.bring_to_front()
    page.locator(".show").first.click()
    page.get_by_role("button", name="Copy the command", exact=True).click()
    reader.bring_to_front()
    assert "--layers stem" in clipboard(reader)


def test_layers_are_found_by_word_and_kind(opened: Open) -> None:
    page = opened()
    visible = page.locator(".plate:visible")
    page.keyboard.press("/")
    page.keyboard.type("stride 16")
    expect(visible).to_have_count(3)
    expect(page.locator("#count")).to_have_text("3 of 9")
    page.get_by_label("Find layers", exact=True).fill("")
    page.get_by_role("button", name="block", exact=True).click()
    expect(visible).to_have_count(5)
    page.get_by_label("Find layers", exact=True).fill("32 block8")
    expect(visible.locator("h2")).to_have_text(["block8"])  # no such phrase, but both words
    page.get_by_label("Find layers", exact=True).fill("nothing like it")
    expect(page.locator("#none")).to_be_visible()
    page.get_by_label("Find layers", exact=True).press("Escape")
    expect(visible).to_have_count(5)
    page.get_by_role("button", name="all", exact=True).click()
    expect(visible).to_have_count(len(LAYERS))
    expect(page.locator("#count")).to_have_text("9")


def test_it_can_be_used_with_the_keyboard_alone(opened: Open) -> None:
    page = opened()
    focused = "document.activeElement.closest('.plate')?.querySelector('h2').textContent"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "stem"
    page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "block1.expand"
    columns = page.evaluate(
        "getComputedStyle(document.querySelector('main')).gridTemplateColumns.split(' ').length"
    )
    assert columns >= 3
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == LAYERS[1 + columns]
    page.keyboard.press("ArrowUp")
    page.keyboard.press("c")
    expect(page.locator(".copy.done")).to_have_count(1)
    assert "--layers block1.expand" in clipboard(page)
    page.keyboard.press("Enter")
    expect(page.locator("#name")).to_have_text("block1.expand")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#name")).to_have_text("block1")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#name")).to_have_text("head")  # round and round
    page.keyboard.down("Space")
    expect(page.locator("#source")).to_be_visible()
    expect(page.locator("#dream")).to_be_hidden()
    page.keyboard.up("Space")
    expect(page.locator("#source")).to_be_hidden()
    page.keyboard.press("c")
    expect(page.locator("#copy")).to_have_text("copied")
    assert "--layers head" in clipboard(page)
    page.keyboard.press("Escape")
    expect(page.locator("dialog")).to_be_hidden()
    assert page.evaluate(focused) == "head"


def test_a_finger_compares_with_the_source(opened: Open) -> None:
    page = opened("phone")
    page.locator(".show").nth(5).click()
    box = page.locator("#compare").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    expect(page.locator("#source")).to_be_visible()
    page.mouse.up()
    expect(page.locator("#source")).to_be_hidden()
    page.get_by_role("button", name="close").click()
    expect(page.locator("dialog")).to_be_hidden()
