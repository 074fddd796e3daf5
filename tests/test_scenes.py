from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from collections.abc import Generator
from fractions import Fraction
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from media import Film, moving
from rich.console import Console
from running import Command, typing
from test_cuts import paint, seen

from streamdream.scenes.formats import as_edl, clock
from streamdream.scenes.listing import Scene, opened, scenes_in, scenes_of
from streamdream.scenes.page import as_page
from streamdream.scenes.table import show
from streamdream.settings import build
from streamdream.sources import VideoSource


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    return typing(capfd, "scenes")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes that meet at frame 5, in the second a flash at frame 8; 30000/1001 a second."""
    film = Film(
        paint, times=tuple(range(12)), time_base=Fraction(1001, 30000), languages=("eng",),
        options={"crf": "16", "preset": "ultrafast"},
    )  # fmt: skip
    return film.write(tmp_path_factory.mktemp("scenes") / "a film.mp4")


@pytest.mark.parametrize(
    "given",
    [{}, {"start": "0.05"}, {"start": "0.2", "frames": 3}, {"end": "0.3"}, {"frames": 9}],
    ids=str,
)
def test_scenes_are_those_that_the_pipeline_starts_anew_at(
    film: Path, given: dict[str, object]
) -> None:
    options = build({"work_size": 48, "size": "96x72", "flow": "dis-fast", **given})
    found, views = list(scenes_of(film, options)), seen(film, options)
    assert [s.begin for s in found] == [v.frame.index for v in views if v.movement is None]
    assert [f for s in found for f in s.flashes] == [v.frame.index for v in views if v.flash]
    assert [s.number for s in found] == list(range(1, len(found) + 1))
    assert [s.end for s in found] == [*(s.begin for s in found[1:]), views[-1].frame.index + 1]
    assert [s.until for s in found[:-1]] == [s.time for s in found[1:]]


def test_times_are_those_that_name_the_scene_again(film: Path) -> None:
    tick = Fraction(1001, 30000)
    first, second = scenes_of(film)
    assert (first.begin, first.end, second.begin, second.end) == (0, 5, 5, 12)
    assert (first.time, first.until) == (0, 5 * tick)
    assert second.until == 11 * tick + Fraction(1, 25)  # the last one is shown for longer
    # As they are printed they mean the same frames, also of a part.
    text = clock(second.time), clock(second.until)
    assert text == ("0:00:00.166", "0:00:00.407")
    options = build({"start": text[0], "end": text[1]})
    (again,) = scenes_of(film, options)
    assert (again.begin, again.end, again.time, again.until) == (0, 7, second.time, second.until)
    with VideoSource(film, options.start, options.end) as source:
        assert len(list(source)) == second.frames


def test_pictures_are_of_the_beginning_the_middle_and_the_end(film: Path) -> None:
    with opened(film, build()) as source:
        found = list(scenes_in(source, pictures=True))
    with VideoSource(film, size=(144, 256)) as source:
        frames = [frame.pixels for frame in source]
    wanted = [(0, 2, 4), (5, 7, 11)]  # not the flash
    for scene, indices in zip(found, wanted, strict=True):
        for picture, index in zip(scene.pictures, indices, strict=True):
            assert np.array_equal(picture, frames[index])


def test_the_list_goes_to_files_and_into_pipes(
    film: Path, tmp_path: Path, command: Command
) -> None:
    code, out, err = command(film)
    assert (code, err) == (0, "")
    assert out.splitlines()[2].split() == ["2", "5", "0:00:00.166", "0:00:00.407", "0.240", "7"]
    code, printed, _ = command(film, "--json")
    told = json.loads(printed)
    assert told["frames"] == 12
    assert float(Fraction(told["rate"])) == pytest.approx(30, rel=0.02)
    assert told["scenes"][1]["begin"] == 5
    assert told["scenes"][1]["flashes"] == [8]
    _, printed, _ = command(film, "--csv")
    rows = list(csv.DictReader(StringIO(printed)))
    # As PySceneDetect counts: from 1, and the last frame belongs to the scene.
    assert [(r["Start Frame"], r["End Frame"]) for r in rows] == [("1", "5"), ("6", "12")]
    assert rows[1]["Start Timecode"] == "00:00:00.166"
    names = [tmp_path / f"list{ending}" for ending in (".csv", ".json", ".edl", ".html")]
    code, out, err = command(film, *[w for name in names for w in ("-o", name)])
    assert (code, out, err) == (0, "", "")
    assert names[0].read_text() == printed
    assert json.loads(names[1].read_text()) == told
    assert "002  AX       V     C        00:00:00:05 00:00:00:12" in names[2].read_text()
    assert not list(tmp_path.glob("*.part.*"))
    code, _, err = command(film, "-o", names[0])
    assert (code, "exists already" in err) == (4, True)
    assert command(film, "-o", names[0], "--overwrite")[0] == 0


def test_an_edit_list_counts_frames_of_the_part_and_of_the_film() -> None:
    rate = Fraction(24000, 1001)
    scenes = [
        Scene(1, 0, 24 * 60, Fraction(100) / rate, Fraction(100 + 24 * 60) / rate),
        Scene(2, 24 * 60, 24 * 61, Fraction(100 + 24 * 60) / rate, Fraction(100 + 24 * 61) / rate),
    ]
    lines = as_edl(scenes, "film.mkv", rate).splitlines()
    assert lines[3].split()[4:] == ["00:00:04:04", "00:01:04:04", "00:00:00:00", "00:01:00:00"]
    assert lines[5].split()[4:] == ["00:01:04:04", "00:01:05:04", "00:01:00:00", "00:01:01:00"]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("nothing.mp4",), 3, "nothing.mp4: no such file"),
        (("FILM", "-o", "list.txt"), 4, "lists of kind .txt are unknown"),
        (("FILM", "-o", "list"), 4, "lists without an ending are unknown"),
        (("FILM", "-o", "nowhere/list.csv"), 4, "there is no folder nowhere"),
        (("FILM", "--csv", "--json"), 2, "--csv: cannot be printed beside --json"),
        (("FILM", "--start", "5", "--end", "3"), 2, "--end 3 is not after --start 5"),
        (("FILM", "--start", "9"), 3, "no picture at or after 9 s"),
        (("FILM", "--frames", "0"), 2, "--frames"),
        (("FILM", "--steps", "3"), 2, "--steps"),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_a_line(
    film: Path, command: Command, words: tuple[str, ...], code: int, told: str
) -> None:
    found, out, err = command(*[str(film) if word == "FILM" else word for word in words])
    assert (found, out) == (code, "")
    assert re.fullmatch(rf"streamdream: error: .*{re.escape(told)}.*\n", err), err


def test_a_terminal_with_colours_shows_thumbnails(film: Path) -> None:
    with opened(film, build()) as source:
        found = list(scenes_in(source, pictures=True))
    text = StringIO()
    console = Console(file=text, force_terminal=True, color_system="truecolor", width=110)
    show(found, console)
    lines = text.getvalue().splitlines()
    assert len(lines) == 14
    h, w = found[0].pictures[0].shape[:2]
    assert all(line.count("▀") == 3 * round(12 * w / h) for line in lines[:6])
    assert "frame 5" in text.getvalue()
    assert "1 flash" in text.getvalue()
    # The upper pixels are the ink, the lower ones the paper.
    inks = [tuple(map(int, c)) for c in re.findall(r"38;2;(\d+);(\d+);(\d+)", lines[0])]
    left = found[0].pictures[0][: h // 12, : w // round(12 * w / h)].reshape(-1, 3).mean(0)
    assert np.abs(np.array(inks[0]) - left).max() < 6


def test_a_still_and_a_single_frame_are_one_scene(tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(moving((64, 96))(0)).save(tmp_path / "in.png")
    (scene,) = scenes_of(tmp_path / "in.png")
    assert (scene.begin, scene.end, scene.seconds) == (0, 1, Fraction(1, 25))


@pytest.fixture(scope="module")
def page_file(film: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    with opened(film, build()) as source:
        found = list(scenes_in(source, pictures=True))
        text = as_page(found, "a <film> & 'more'.mp4", source.info.rate)
    path = tmp_path_factory.mktemp("page") / "scenes.html"
    path.write_text(text, "utf-8")
    return path


def test_the_page_works_in_a_browser_and_needs_nothing_else(page_file: Path) -> None:
    pytest.importorskip("playwright.sync_api", reason="a browser needs playwright")
    from playwright.sync_api import Error, sync_playwright

    def browsers() -> Generator[None]:
        with sync_playwright() as play:
            path = shutil.which("chromium") or play.chromium.executable_path
            try:
                browser = play.chromium.launch(executable_path=path, args=["--no-sandbox"])
            except Error as fault:
                pytest.skip(f"no Chromium here: {fault}")
            context = browser.new_context(permissions=["clipboard-read", "clipboard-write"])
            page, asked, faults = context.new_page(), list[str](), list[str]()
            page.on("request", lambda request: asked.append(request.url))
            page.on("console", lambda line: faults.append(line.text))
            page.on("pageerror", lambda fault: faults.append(str(fault)))
            page.goto(page_file.as_uri())
            assert page.title() == "Scenes of a <film> & 'more'.mp4"
            assert page.locator("article").count() == 2
            whole = "images => images.every(i => i.complete && i.naturalWidth > 100)"
            page.locator("article img").last.scroll_into_view_if_needed()  # they are lazy
            pictures = "[...document.querySelectorAll('article img')]"
            page.wait_for_function(f"({whole})({pictures})", timeout=20_000)
            # The bar is as the scenes are long.
            wide = [box["width"] for a in page.locator(".bar a").all() if (box := a.bounding_box())]
            assert wide[1] / wide[0] == pytest.approx(0.2402 / 0.1668, rel=0.01)
            page.get_by_role("button", name="longest first").click()
            order = page.locator("article").evaluate_all("cards => cards.map(c => c.id)")
            assert order == ["s2", "s1"]
            page.locator("#s2 [data-command]").click()
            page.get_by_text("copied").wait_for()
            words = shlex.split(page.evaluate("navigator.clipboard.readText()"))
            assert words[1] == "a <film> & 'more'.mp4"
            assert words[-4:] == ["--start", "0:00:00.166", "--end", "0:00:00.407"]
            page.set_viewport_size({"width": 360, "height": 640})
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
            assert faults == []
            assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
            browser.close()
        yield

    for _ in browsers():
        pass
