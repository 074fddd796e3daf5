from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")

from browsing import browser as browser  # noqa: PLC0414 - a fixture
from playwright.sync_api import Browser, Page, expect
from served import Served

TOKEN = "correct-horse"
MOVED = """async () => {
  const grab = () => {
    const small = new OffscreenCanvas(32, 18);
    const pen = small.getContext("2d");
    pen.drawImage(document.querySelector("#view"), 0, 0, 32, 18);
    return pen.getImageData(0, 0, 32, 18).data;
  };
  const before = grab();
  await new Promise((done) => setTimeout(done, 400));
  const after = grab();
  return before.reduce((sum, value, i) => sum + Math.abs(value - after[i]), 0) / before.length;
}"""


class Seen:
    """What went on in a browser's page while a test ran."""

    def __init__(self, page: Page) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.sent: list[Any] = []
        page.on("console", lambda line: self.errors.append(line.text))
        page.on("pageerror", lambda fault: self.errors.append(str(fault)))
        page.on("request", self._asked)

    def _asked(self, request: Any) -> None:
        self.hosts.add(request.url.split("/")[2])
        if request.method == "POST":
            self.sent.append(request.post_data_json)


Open = Callable[..., tuple[Page, Served, Seen]]


@pytest.fixture
def opened(browser: Browser) -> Generator[Open]:
    """Opens the page; at the end nothing may have been complained of or asked of others."""
    closing: list[Callable[[], None]] = []
    pages: list[tuple[Served, Seen]] = []

    def open_page(
        size: tuple[int, int] = (1280, 800), hidden: Collection[str] = (), **more: Any
    ) -> tuple[Page, Served, Seen]:
        served = Served(hidden=hidden)
        closing.append(served.close)
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
        closing.append(context.close)
        page = context.new_page()
        page.set_default_timeout(8000)
        seen = Seen(page)
        pages.append((served, seen))
        page.goto(served.web.address)
        page.wait_for_selector("#control-strength")
        return page, served, seen

    try:
        yield open_page
        for served, seen in pages:
            assert seen.errors == []
            assert seen.hosts == {f"127.0.0.1:{served.port}"}
            assert served.told == []
    finally:
        for close in reversed(closing):
            close()


def until(true: Callable[[], bool], page: Page, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            return False
        page.wait_for_timeout(30)
    return True


def test_the_picture_moves_and_can_be_put_off(opened: Open) -> None:
    page, served, _ = opened()
    expect(page.locator("#overlay")).to_be_empty()
    assert page.evaluate(MOVED) > 3
    page.get_by_role("button", name="Picture on").focus()
    page.keyboard.press("Enter")
    assert until(lambda: not served.web.watching, page)
    assert page.evaluate(MOVED) == 0
    page.get_by_role("button", name="Picture off").click()
    assert until(lambda: served.web.watching, page)
    expect(page.locator("#overlay")).to_be_empty()
    assert page.evaluate(MOVED) > 3


def test_who_wants_little_motion_begins_without_the_picture(opened: Open) -> None:
    page, served, _ = opened(reduced_motion="reduce")
    expect(page.locator("#overlay")).to_have_text("The picture is off")
    page.wait_for_timeout(300)
    assert not served.web.watching


def test_a_slider_moves_by_keyboard_and_shows_its_number(opened: Open) -> None:
    page, served, _ = opened()
    slider = page.get_by_label("Strength", exact=True)
    expect(slider).to_have_value("1")
    slider.focus()
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    assert until(lambda: abs(served.controls.values()["strength"] - 1.03) < 1e-9, page)
    expect(page.get_by_label("Strength, as a number", exact=True)).to_have_value("1.03")
    page.keyboard.press("End")
    assert until(lambda: served.controls.values()["strength"] == 2, page)


def test_numbers_are_typed_beyond_the_slider_and_wrong_ones_complained_of(opened: Open) -> None:
    page, served, seen = opened()
    page.get_by_text("More", exact=True).click()
    number = page.get_by_label("Octaves, as a number")
    number.fill("9")
    number.press("Enter")
    assert until(lambda: served.controls.values()["octaves"] == 9, page)
    sent = len(seen.sent)
    number.fill("99")
    number.press("Enter")
    expect(page.locator("#control-octaves-wrong")).to_contain_text("from 1 to 16")
    expect(number).to_have_value("9")
    expect(number).to_have_attribute("aria-invalid", "true")
    assert len(seen.sent) == sent
    number.fill("2")
    number.press("Enter")
    expect(page.locator("#control-octaves-wrong")).to_be_empty()
    assert until(lambda: served.controls.values()["octaves"] == 2, page)


def test_choices_switches_and_layers_are_set(opened: Open) -> None:
    page, served, _ = opened()
    values = served.controls.values
    page.get_by_label("View", exact=True).select_option("split")
    page.get_by_role("switch", name="Mirror").press("Space")
    layers = page.get_by_label("Layers", exact=True).and_(page.locator("select"))
    layers.select_option("block8")
    layers.select_option("block12")
    assert until(lambda: values()["layers"] == "block8,block12", page)
    assert (values()["view"], values()["mirror"]) == ("split", True)
    page.get_by_role("button", name="Remove block8").click()
    assert until(lambda: values()["layers"] == "block12", page)
    page.get_by_label("Model").select_option("vgg19")
    layers.locator("option[value=relu5_1]").wait_for(state="attached")
    assert values()["layers"] == ""


def test_many_moves_of_a_slider_are_few_messages_and_the_last_one_counts(opened: Open) -> None:
    page, served, seen = opened()
    page.get_by_text("More", exact=True).click()
    slider = page.get_by_label("Memory", exact=True)
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 5, y)
    page.mouse.down()
    began = time.monotonic()
    for step in range(60):
        page.mouse.move(box["x"] + 5 + step * 4, y)
        page.wait_for_timeout(8)
    served.controls.set("memory", 0.3)  # somebody else; the hand that holds it counts
    page.wait_for_timeout(700)
    held = slider.input_value()
    took = time.monotonic() - began
    page.mouse.move(box["x"] + 250, y)
    page.mouse.up()
    last = float(slider.input_value())
    assert float(held) > 5
    assert until(lambda: served.controls.values()["memory"] == last, page)
    assert 2 <= len(seen.sent) <= 10 * took + 3


def test_what_changes_elsewhere_is_shown(opened: Open) -> None:
    page, served, _ = opened()
    served.controls.set("strength", 0.4321)
    served.controls.set("gate", "still")
    served.controls.set("mirror", True)
    expect(page.get_by_label("Strength, as a number", exact=True)).to_have_value("0.4321")
    expect(page.get_by_label("Gate")).to_have_value("still")
    expect(page.get_by_role("switch", name="Mirror")).to_be_checked()
    served.controls.take_preset("whisper")
    expect(page.get_by_role("button", name="Whisper")).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("button", name="Eyes")).to_have_attribute("aria-pressed", "false")


def test_presets_and_actions_are_buttons(opened: Open) -> None:
    page, served, _ = opened()
    page.get_by_role("button", name="Beads").click()
    assert until(lambda: served.controls.preset == "beads", page)
    expect(page.get_by_role("button", name="Beads")).to_have_attribute("aria-pressed", "true")
    record = page.locator("[data-action=record]")
    quiet = record.evaluate("(button) => getComputedStyle(button).backgroundColor")
    record.click()
    expect(page).to_have_title("● Recording: streamdream")
    expect(record).to_have_attribute("aria-pressed", "true")
    assert ("record", True) in served.acts
    page.wait_for_timeout(300)
    assert record.evaluate("(button) => getComputedStyle(button).backgroundColor") != quiet
    record.click()
    expect(page).to_have_title("streamdream")
    assert served.acts[-1] == ("record", False)


def test_the_end_is_asked_for_twice(opened: Open) -> None:
    page, served, _ = opened()
    end = page.locator("[data-action=quit]")
    end.click()
    expect(end).to_contain_text("Really end?")
    page.wait_for_timeout(700)
    assert served.acts == []
    end.click()
    assert until(lambda: served.acts == [("quit", None)], page)


def test_keys_act_unless_something_is_typed_or_they_are_off(opened: Open) -> None:
    page, served, _ = opened()
    page.keyboard.press("b")
    assert until(lambda: served.acts == [("blackout", True)], page)
    page.get_by_label("Strength, as a number", exact=True).press("z")
    page.keyboard.press("Escape")
    page.get_by_role("switch", name="Keys").press("Space")
    page.keyboard.press("z")
    page.wait_for_timeout(700)
    assert served.acts == [("blackout", True)]


def test_the_status_is_shown_and_every_control_has_a_name_and_a_hint(opened: Open) -> None:
    page, served, _ = opened()
    expect(page.locator("#camera-line")).to_have_text("a test camera")
    expect(page.locator("#stats")).to_contain_text("24.5")
    expect(page.locator("#stats")).to_contain_text("41 ms")
    expect(page.locator("#troubles")).to_have_text("rtmp: connection refused")
    page.get_by_text("More", exact=True).click()
    for control in served.controls.table.values():
        input_ = page.locator(f"#control-{control.name}")
        assert page.locator(f"label[for=control-{control.name}]").inner_text()
        described = (input_.get_attribute("aria-describedby") or "").split()[0]
        assert page.locator(f"#{described}").inner_text() == control.help.replace("--", "")
    page.wait_for_timeout(1100)  # told once, however often it is asked
    expect(page.locator("#notices p")).to_have_text(["the camera came back"])


def test_the_picture_presets_and_strength_come_first_and_experts_options_are_folded(
    opened: Open,
) -> None:
    page, _, _ = opened((390, 844))
    page.wait_for_timeout(300)
    ids = ["#frame", "#presets", "#control-strength", "#control-layers", "#actions"]
    ids += ["#control-model", "details", "#stats", "#notices"]
    tops = [(page.locator(one).bounding_box() or {"y": -1.0})["y"] for one in ids]
    assert tops == sorted(tops)
    strength = page.locator("#control-strength").bounding_box()
    assert strength is not None
    assert strength["y"] + strength["height"] < 844
    for name in ("octaves", "octave-scale", "steps", "jitter", "seed", "memory", "flow"):
        expect(page.locator(f"#control-{name}")).not_to_be_visible()
    page.get_by_text("More", exact=True).click()
    expect(page.locator("#control-memory")).to_be_visible()


def test_on_a_phone_the_chosen_preset_is_swept_into_view(opened: Open) -> None:
    page, served, _ = opened((390, 844))
    strip = page.locator("#presets")
    last = strip.get_by_role("button").last
    assert strip.evaluate("row => row.scrollWidth > row.clientWidth")
    expect(last).not_to_be_in_viewport()
    served.controls.take_preset(served.controls.presets[-1])
    expect(last).to_have_attribute("aria-pressed", "true")
    expect(last).to_be_in_viewport(ratio=1)
    assert page.evaluate("window.scrollY") == 0
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_only_signals_that_are_alive_are_shown(opened: Open) -> None:
    page, served, _ = opened()
    meters = page.locator("#signals label")
    served.signals = {"beat": 0.0, "bass": 0.4}
    expect(meters).to_have_text(["bass"])
    served.signals = {"beat": 0.9, "bass": 0.0}
    expect(meters).to_have_text(["beat", "bass"])
    page.clock.install()
    page.clock.run_for(12_000)
    expect(meters).to_have_text(["beat"])


def test_hidden_actions_are_neither_buttons_nor_keys(opened: Open) -> None:
    page, served, _ = opened(hidden={"learn"})
    expect(page.locator("[data-action=tap]")).to_be_visible()
    expect(page.locator("[data-action=learn]")).to_have_count(0)
    page.keyboard.press("l")
    page.keyboard.press("b")
    assert until(lambda: served.acts == [("blackout", True)], page)


def test_a_number_of_no_kind_goes_back_to_the_value_in_force(opened: Open) -> None:
    page, served, seen = opened()
    number = page.get_by_label("Strength, as a number", exact=True)
    served.controls.set("strength", 0.7)
    expect(number).to_have_value("0.7")
    for wrong in ("", "-3"):
        number.fill(wrong)
        number.press("Enter")
        expect(page.locator("#control-strength-wrong")).to_contain_text("from 0")
        expect(number).to_have_value("0.7")
    assert seen.sent == []


@pytest.mark.parametrize("able", [True, False])
def test_the_picture_is_enlarged_and_made_smaller(opened: Open, able: bool) -> None:
    page, _, _ = opened((390, 844), has_touch=True, is_mobile=True)
    if not able:
        page.evaluate("delete Element.prototype.requestFullscreen")
    button, close = page.locator("#enlarge"), page.locator("#close")
    expect(close).not_to_be_visible()
    ends = [lambda: page.keyboard.press("Escape"), close.tap, button.tap]
    for end in ends:
        expect(button).to_have_text("Enlarge")
        button.tap()
        expect(button).to_have_attribute("aria-pressed", "true")
        expect(button).to_have_text("Smaller")
        expect(close).to_be_visible()
        assert until(lambda: (page.locator("#frame").bounding_box() or {})["height"] == 844, page)
        assert page.evaluate("document.fullscreenElement !== null") is able
        end()
        expect(button).to_have_attribute("aria-pressed", "false")
        expect(close).not_to_be_visible()
        assert until(lambda: page.evaluate("document.fullscreenElement === null"), page)


def test_figures_read_as_they_are_said(opened: Open) -> None:
    page, served, _ = opened()
    served.seconds = 11.0
    expect(page.locator("#stats")).to_contain_text("Running for 0:11")
    expect(page.locator("#stats")).to_contain_text("6 pictures dropped")
    expect(page.locator("#control-layers").locator("xpath=..")).to_contain_text("usual ones")
    assert "own choice" not in page.locator("body").inner_text()


def test_help_names_options_without_dashes(opened: Open) -> None:
    page, _, _ = opened()
    expect(page.locator("#control-sensitivity-hint")).to_contain_text("gate and attract")
    assert page.evaluate("document.body.textContent.includes('--')") is False
    made = page.evaluate("import('/rows.js').then((rows) => rows.plain('with --warm-steps 0'))")
    assert made == "with warm steps 0"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("/home/me/My clips/a b.mp4 1280x720", "a b.mp4 1280x720"),
        ("C:\\clips\\a.mp4 64x48", "a.mp4 64x48"),
        ("/dev/video0 640x480", "video0 640x480"),
        ("lost (/dev/video0: gone), tried again", "lost (video0: gone), tried again"),
        ("front camera 640x480", "front camera 640x480"),
        ("opening", "opening"),
    ],
)
def test_of_a_path_only_the_name_is_shown(shown_as: Page, line: str, shown: str) -> None:
    made = shown_as.evaluate("(line) => import('/status.js').then((s) => s.short(line))", line)
    assert made == shown


@pytest.fixture(scope="module")
def shown_as(browser: Browser) -> Generator[Page]:
    with Served() as served:
        page = browser.new_page()
        page.goto(served.web.address)
        yield page
        page.close()


def test_a_camera_named_by_a_path_is_short_in_the_header(opened: Open) -> None:
    page, served, _ = opened()
    served.camera = "/srv/show/loop.mp4 160x90"
    expect(page.locator("#camera-line")).to_have_text("loop.mp4 160x90")


def test_after_a_snapshot_the_last_picture_is_offered(opened: Open) -> None:
    page, _, _ = opened()
    link = page.get_by_role("link", name="Last picture")
    expect(link).to_have_count(0)
    page.locator("[data-action=snapshot]").click()
    with page.expect_download() as found:
        link.click()
    assert found.value.suggested_filename == "streamdream.jpg"
    assert found.value.path().read_bytes().startswith(b"\xff\xd8")


def test_everything_is_reached_by_tab_and_shows_where_it_is(opened: Open) -> None:
    page, _, _ = opened()
    wanted = page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, a, summary")]
             .filter((one) => one.checkVisibility()).map((one, i) => (one.dataset.n = i))"""
    )
    reached = []
    for _ in wanted:
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                """() => {
                  const one = document.activeElement;
                  const ring = getComputedStyle(one).outlineStyle !== "none";
                  return [Number(one.dataset.n), ring || one.matches(".skip")];
                }"""
            )
        )
    assert sorted(number for number, _ in reached) == wanted
    assert all(ring for _, ring in reached)


def test_nothing_is_wider_than_the_page_and_targets_are_large(opened: Open) -> None:
    page, _, _ = opened()
    page.get_by_text("More", exact=True).click()
    for width in (320, 360, 390, 844, 1280, 1920):
        page.set_viewport_size({"width": width, "height": 700})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        small = page.evaluate(
            """() => [...document.querySelectorAll("button, input, select, summary")]
                 .filter((one) => one.checkVisibility() && !one.matches("[role=switch]"))
                 .filter((one) => one.getBoundingClientRect().height < 44)
                 .map((one) => one.outerHTML)"""
        )
        assert small == []


def test_a_lost_connection_is_shown_and_mended(browser: Browser) -> None:
    page = browser.new_page()
    try:
        with Served() as served:
            page.goto(served.web.address)
            page.wait_for_selector("#control-strength")
        expect(page.locator("#lost")).to_contain_text("Connection lost", timeout=8000)
        with Served(port=served.port) as again:
            expect(page.locator("#lost")).to_be_empty(timeout=8000)
            assert until(lambda: again.web.watching, page)
            expect(page.locator("#overlay")).to_be_empty()
            assert page.evaluate(MOVED) > 3
            again.controls.set("strength", 0.25)
            expect(page.get_by_label("Strength, as a number", exact=True)).to_have_value("0.25")
    finally:
        page.close()


def test_the_token_is_asked_for_and_a_wrong_one_refused(browser: Browser) -> None:
    page = browser.new_page()
    with Served(TOKEN) as served:
        plain = served.web.address.partition("?")[0]
        page.goto(plain + "?token=wrong-horse")
        expect(page.get_by_role("alert")).to_have_text("This is not the token")
        page.get_by_label("Token").fill("another-horse")
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_role("alert")).to_have_text("This is not the token")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.get_by_label("Token").fill(TOKEN)
        page.get_by_role("button", name="Open").click()
        page.wait_for_selector("#control-strength")
        assert page.url == plain
        assert page.evaluate("document.cookie") == ""
        page.close()


@pytest.fixture
def elsewhere() -> Generator[tuple[str, Callable[[str], None]]]:
    """Another site, and a way to say what is on its page."""
    shown = [""]

    class Site(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(shown[0].encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()

        def say(text: str) -> None:
            shown[0] = text

        yield f"http://localhost:{server.server_port}/", say
        server.shutdown()
        thread.join()


def test_a_link_with_the_token_on_another_site_leads_in(
    browser: Browser, elsewhere: tuple[str, Callable[[str], None]]
) -> None:
    page = browser.new_page()
    url, say = elsewhere
    with Served(TOKEN) as served:
        say(f'<a href="{served.web.address}">there</a>')
        page.goto(url)
        page.get_by_text("there").click()
        page.wait_for_selector("#control-strength")
        assert "token" not in page.url
        page.close()


def test_another_sites_page_neither_sees_nor_changes_anything(
    browser: Browser, elsewhere: tuple[str, Callable[[str], None]]
) -> None:
    page = browser.new_page()
    url, say = elsewhere
    with Served() as served:
        before = served.controls.values()
        here = served.web.address
        say(
            f"""<img src="{here}stream.mjpg"><iframe src="{here}"></iframe>
            <form action="{here}api/act" method="post" enctype="text/plain">
            <input name='{{"name":"blackout","a":"' value='"}}'></form>"""
        )
        page.goto(url)
        tried = page.evaluate(
            """async (here) => {
              const said = [];
              for (const type of ["text/plain", "application/json"])
                for (const mode of ["no-cors", "cors"])
                  said.push(await fetch(here + "api/set", {
                    method: "POST", mode, headers: {"Content-Type": type},
                    body: '{"strength": 0.1}',
                  }).then((answer) => answer.type, () => "refused"));
              said.push(await fetch(here + "api/status").then(() => "read", () => "refused"));
              said.push(document.querySelector("img").naturalWidth);
              return said;
            }""",
            here,
        )
        page.evaluate("document.forms[0].submit()")
        page.wait_for_timeout(500)
        assert tried[1] == tried[3] == tried[4] == "refused"
        assert tried[5] == 0
        assert served.controls.values() == before
        assert served.controls.actions() == []
        assert not served.web.watching
        assert served.told == []
        page.close()


SEEN = """() => {
  const small = new OffscreenCanvas(64, 36);
  const pen = small.getContext("2d");
  pen.drawImage(document.querySelector("#view"), 0, 0, 64, 36);
  return Array.from(pen.getImageData(0, 0, 64, 36).data);
}"""


@pytest.mark.alone
def test_a_slider_and_a_preset_change_the_real_picture(browser: Browser, tmp_path: Path) -> None:
    from PIL import Image
    from skimage import data
    from test_live_session import session

    photo = tmp_path / "photo.png"
    Image.fromarray(data.coffee()[::2, ::2]).save(photo)
    with session(str(photo), http=0, ramp=0.1, work_size=96) as (run, told):
        page = browser.new_context().new_page()
        page.set_default_timeout(40000)  # it shares its processor with the dream
        page.goto(told[0].removeprefix("page: "))
        slider = page.locator("#control-strength")
        slider.wait_for()
        assert until(lambda: run.dreamer.dreams > 6, page, 60)

        def seen() -> np.ndarray:
            return np.array(page.evaluate(SEEN), np.float32).reshape(36, 64, 4)[..., :3]

        slider.focus()
        page.keyboard.press("Home")  # no dream at all
        assert until(lambda: run.controls.at().strength == 0, page)
        page.wait_for_timeout(500)
        plain = seen()
        assert np.abs(seen() - plain).mean() < 1
        page.keyboard.press("End")  # twice as much as usual
        # Less of it is dreamed where processors are busy; nothing alone would be below 1.
        assert until(lambda: float(np.abs(seen() - plain).mean()) > 3, page, 20)
        page.keyboard.press("Home")
        assert until(lambda: float(np.abs(seen() - plain).mean()) < 1, page)
        page.get_by_role("button", name="engraving").click()
        assert until(lambda: run.controls.at().chosen_layers == ("block5",), page)
        before = run.dreamer.dreams
        assert until(lambda: run.dreamer.dreams > before + 1, page, 20)
        page.context.close()
