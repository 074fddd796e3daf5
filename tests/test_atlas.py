"""Atlases: pages, sheets and feature maps of real layers of a real photograph."""

from __future__ import annotations

import html
import re
import shlex
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from media import Film, flat
from PIL import Image
from safetensors.numpy import load_file

from streamdream import cli, settings
from streamdream.atlas import features, making, sheet, typed
from streamdream.atlas.commands import manner_of
from streamdream.atlas.making import make_atlas, subject_of
from streamdream.atlas.options import AtlasOptions
from streamdream.atlas.plates import Keep, dream_plates
from streamdream.backbone import Backbone
from streamdream.frame import Image as Picture
from streamdream.frame import to_image, to_pixels
from streamdream.info import Counts, VideoInfo
from streamdream.models import card
from streamdream.options import Options
from streamdream.run import Silent
from streamdream.settings import made
from streamdream.sinks import Stopped

TINY = {"work_size": 32, "octaves": 1, "steps": 1}
NASTY = 'a cat\'s <b>&"50%" photo.png'
LAYERS = card("efficientnet-lite0").layers


def tiny(**more: object) -> AtlasOptions:
    return made(AtlasOptions, TINY, more)


@pytest.fixture(scope="module")
def still(photo: Picture, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("atlas") / NASTY
    Image.fromarray(to_pixels(photo)).save(path)
    return path


@pytest.fixture(scope="module")
def whole(still: Path) -> str:
    """The page of all layers."""
    target = still.parent / "whole.html"
    outcome = make_atlas(str(still), target, tiny(start=Fraction(0)))
    assert (outcome.pictures, outcome.complete, outcome.paths) == (len(LAYERS), True, [target])
    return target.read_text("utf-8")


def commands(page: str) -> list[str]:
    """The commands of a page, as they are read there."""
    found = re.findall(r"<code>(.+?)</code>", page)
    return [html.unescape(re.sub(r"</?span>", "", text)) for text in found]


def test_every_layer_is_on_the_page_with_a_picture_of_its_own(whole: str) -> None:
    assert re.findall(r"<h2>(.+?)</h2>", whole) == list(LAYERS)
    pictures = re.findall(r'<img src="(data:image/webp;base64,[^"]+)" alt="[\w.]+"', whole)
    assert len(set(pictures)) == len(LAYERS)
    facts = dict(zip(LAYERS, re.findall(r'class="facts">(.+?)</p>', whole), strict=True))
    assert facts["stem"] == "1 of 50 · 32 channels · stride 2"
    assert facts["block9"] == "30 of 50 · 112 channels · stride 16"
    assert facts["logits"] == "50 of 50 · 1000 channels · sees all at once"


def test_nothing_on_the_page_leads_out_of_it(whole: str) -> None:
    assert not re.search(r"""(src|href)=["'](?!data:)|url\(|@import|https?://""", whole)


def test_names_are_escaped_and_quoted(whole: str, still: Path) -> None:
    assert (
        f"<h1>{html.escape(NASTY)}</h1>".replace("&#x27;", "&#39;").replace("&quot;", "&#34;")
        in whole
    )
    assert "<b>" not in whole
    words = shlex.split(commands(whole)[29])
    target = 'a cat\'s <b>&"50" photo-block9.png'
    assert words[:6] == ["streamdream", str(still), "-o", target, "--layers", "block9"]
    assert set(" ".join(words[6:]).split("--")[1:]) >= {"octaves 1 ", "steps 1 "}


def test_the_command_makes_the_very_picture(
    still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = AtlasOptions(
        layers=("block5",), octaves=2, steps=2, work_size=64, seed=7, strength=1.5
    )
    subject, kept = subject_of(str(still), options), []
    plates = making.plates_of(subject, options, torch.device("cpu"))
    list(dream_plates(plates, subject.frame, torch.device("cpu"), lambda _, d: kept.append(d)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(plates[0].command)[1:])
    assert ended.value.code == 0
    (made_alone,) = tmp_path.iterdir()
    assert np.array_equal(np.asarray(Image.open(made_alone)), kept[0].pixels)


@pytest.mark.parametrize("name", settings.preset_names())
def test_presets_say_how_layers_are_dreamed(name: str) -> None:
    options = settings.chosen(AtlasOptions, None, None, None, manner_of(name))
    look = settings.build(settings.read_preset(name))
    assert options.shown_layers == card(look.model).layers
    for same in ("octaves", "steps", "levels", "decorrelate", "hold_saturation", "mask"):
        assert getattr(options, same) == getattr(look, same)


def test_an_atlas_takes_a_preset(still: Path, tmp_path: Path, refused: Refused) -> None:
    target = tmp_path / "atlas.html"
    words = ["atlas", str(still), "-o", str(target), "--layers", "block3", "--work-size", "32"]
    with pytest.raises(SystemExit) as left:
        cli.main([*words, "--octaves", "1", "--steps", "1", "--preset", "relief"])
    assert left.value.code == 0
    (command,) = commands(target.read_text("utf-8"))
    assert "--decorrelate 1" in command
    assert "no such preset" in refused(*words[1:], "--preset", "nothing")


def test_plates_are_the_same_however_many_are_dreamed_at_once(still: Path) -> None:
    options = tiny(layers=LAYERS[10:16])
    subject = subject_of(str(still), options)
    plates = making.plates_of(subject, options, torch.device("cpu"))
    found: list[dict[int, np.ndarray]] = []
    workers: list[set[int]] = []
    before = torch.get_num_threads()
    for threads in (1, 3):
        pictures: dict[int, np.ndarray] = {}
        seen: set[int] = set()

        def keep(number: int, dreamed: making.Dreamed) -> None:
            pictures[number] = dreamed.pixels  # noqa: B023 - called within this turn
            seen.add(threading.get_ident())  # noqa: B023

        torch.set_num_threads(threads)
        try:
            list(dream_plates(plates, subject.frame, torch.device("cpu"), keep))
            assert torch.get_num_threads() == threads
        finally:
            torch.set_num_threads(before)
        found.append(pictures)
        workers.append(seen)
    assert len(workers[0]) == 1
    assert len(workers[1]) > 1
    assert all(np.array_equal(found[0][n], found[1][n]) for n in range(len(plates)))


def test_the_most_excited_channels_are_shown_too(still: Path, lite0: Backbone) -> None:
    options = tiny(layers=("block5", "logits"), channels=3)
    subject = subject_of(str(still), options)
    plates = making.plates_of(subject, options, torch.device("cpu"))
    assert [plate.name.partition("[")[0] for plate in plates] == ["block5"] * 4 + ["logits"] * 4
    image = to_image(subject.frame.pixels, (32, 43))
    with torch.no_grad():
        seen = lite0(image, ("block5",))["block5"][0].square().mean((1, 2))
    strongest = seen.argsort(descending=True)[:3].tolist()
    assert [plate.name for plate in plates[1:4]] == [f"block5[{n}]" for n in strongest]
    assert plates[1].facts == ("18 of 50", f"channel {strongest[0]} of 80", "stride 16")
    assert f"--layers 'block5[{strongest[0]}]'" in plates[1].command
    assert f"-block5-{strongest[0]}.png" in plates[1].command
    pictures: dict[int, np.ndarray] = {}
    keep: Keep = lambda number, dreamed: pictures.update({number: dreamed.pixels})  # noqa: E731
    list(dream_plates(plates, subject.frame, torch.device("cpu"), keep))
    found = [to_image(pictures[n], (32, 43)) for n in range(4)]

    def response(picture: Picture) -> float:
        with torch.no_grad():
            return float(lite0(picture, ("block5",))["block5"][0, strongest[0]].square().mean())

    assert response(found[1]) > max(response(image), response(found[0]))


def test_a_sheet_shows_all_pictures_once(still: Path, tmp_path: Path) -> None:
    layers = ("stem", "block3", "block9", "head")
    target = tmp_path / "sheet.png"
    options = tiny(layers=layers)
    make_atlas(str(still), target, options)
    assert list(tmp_path.iterdir()) == [target]
    drawn = np.asarray(Image.open(target))
    subject, pictures = subject_of(str(still), options), {}
    plates = making.plates_of(subject, options, torch.device("cpu"))

    def keep(number: int, dreamed: making.Dreamed) -> None:
        pictures[number] = sheet.small(dreamed.pixels)

    list(dream_plates(plates, subject.frame, torch.device("cpu"), keep))
    places = set()
    for picture in pictures.values():
        h, w = picture.shape[:2]
        corners = np.argwhere((drawn[: -h + 1, : -w + 1] == picture[0, 0]).all(-1))
        here = [(y, x) for y, x in corners if np.array_equal(drawn[y : y + h, x : x + w], picture)]
        assert len(here) == 1
        places |= set(here)
    assert len(places) == len(layers)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 12, 50, 450])
def test_sheets_have_a_good_shape(count: int) -> None:
    columns = sheet.columns_of(count, (269, 300))
    assert 1 <= columns <= count
    if count >= 7:
        shape = columns * 300 / (-(-count // columns) * 269)
        assert 1 < shape < 2.3


def test_features_are_what_the_network_sees(
    still: Path, tmp_path: Path, lite0: Backbone, photo: Picture
) -> None:
    layers = ("block1", "block9.expand", "logits")
    options = tiny(
        layers=layers,
        features=tmp_path / "maps",
        feature_data="safetensors",
    )
    made_of = make_atlas(str(still), None, options)
    assert made_of.pictures == 0  # nothing had to be dreamed
    names = sorted(path.name for path in (tmp_path / "maps").iterdir())
    assert names == [
        "1-block1.png", "2-block9.expand.png", "3-logits.png", "features.safetensors",
    ]  # fmt: skip
    found = load_file(tmp_path / "maps" / "features.safetensors")
    with torch.no_grad():
        seen = lite0(to_image(to_pixels(photo), (32, 43)), layers)
    for layer in layers:
        assert np.array_equal(found[layer], seen[layer][0].numpy())


def test_feature_numbers_as_npz(still: Path, tmp_path: Path) -> None:
    options = tiny(
        layers=("block5",),
        features=tmp_path,
        feature_data="npz",
    )
    make_atlas(str(still), None, options)
    with np.load(tmp_path / "features.npz") as found:
        assert found["block5"].shape == (80, 2, 3)
        assert found["block5"].dtype == np.float32


def test_maps_are_bright_where_a_channel_is_strong() -> None:
    maps = np.zeros((3, 4, 6), np.float32)
    maps[0, 1, 2], maps[1, 3, 5], maps[2, 0, 0] = 2, -2, 0.002
    strong, negative, faint = features.coloured(maps)
    assert tuple(strong[1, 2]) == features.ABOVE
    assert tuple(negative[3, 5]) == features.BELOW
    assert faint.max() < 5  # of no importance, and not made look as if it were
    assert strong[0, 0].max() == 0
    height, width = np.asarray(features.grid(maps)).shape[:2]
    assert width >= features.LEAST_CELL
    assert height >= 3 * features.LEAST_CELL * 4 / 6


class After(Silent):
    """Stops when so many pictures are done."""

    def __init__(self, most: int) -> None:
        self.most, self.total = most, 0

    def begin(self, info: VideoInfo) -> None:
        self.total = info.frames or 0

    def step(self, frames: int, counts: Counts) -> None:
        if frames >= self.most:
            raise Stopped


def test_an_interrupted_atlas_can_be_opened(still: Path, tmp_path: Path) -> None:
    target, extra = tmp_path / "out.html", tmp_path / "sheet.jpg"
    listener = After(3)
    outcome = make_atlas(str(still), target, tiny(sheet=extra), listener)
    assert listener.total == len(LAYERS)
    assert not outcome.complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.part.html", "sheet.part.jpg"]
    page = (tmp_path / "out.part.html").read_text("utf-8")
    assert 3 <= len(commands(page)) == outcome.pictures < len(LAYERS)
    assert f"Interrupted: {outcome.pictures} of 50" in page
    assert page.rstrip().endswith("</html>")
    with Image.open(tmp_path / "sheet.part.jpg") as image:
        image.load()


def test_an_atlas_interrupted_at_once_leaves_no_page(still: Path, tmp_path: Path) -> None:
    options = tiny(features=tmp_path / "maps")
    outcome = make_atlas(str(still), tmp_path / "none.html", options, After(0))
    assert (outcome.pictures, outcome.complete) == (0, False)
    assert outcome.paths == [tmp_path / "maps"]
    assert [path.name for path in tmp_path.rglob("*")] == ["maps", "01-stem.png"]


def test_a_video_gives_its_frame_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Film(paint=lambda i: flat((20 * i, 40, 60))(i)).write(tmp_path / "film.mp4")
    options = tiny(start=Fraction(1, 5))
    subject = subject_of(str(source), options)
    assert np.abs(subject.frame.pixels[..., 0].astype(int) - 100).max() <= 3
    command = making.command_of(subject, "block9", ["--layers", "block9"], options.as_options())
    assert " --start 0.2 " in command
    assert command.endswith(" --frames 1")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(shlex.split(command)[1:])
    assert ended.value.code == 0
    assert (tmp_path / "film-block9.png").exists()


@pytest.mark.parametrize(
    ("source", "stem"),
    [
        ("photo.jpg", "photo"),
        ("in/two.words.png", "two.words"),
        ("frames/%05d.png", "picture"),
        ("frames/shot-*.png", "shot"),
        ("https://example.org/a.mp4?x=1", "a"),
        ("-", "picture"),
        ("-rf.png", "rf"),
    ],
)
def test_files_are_called_after_their_source(source: str, stem: str) -> None:
    assert typed.stem(source) == stem


def test_options_survive_being_typed(
    still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = made(
        Options,
        {
            "layers": "block3,block9*0.4", "strength": "0: 0.2, 3s: 1 ease", "step_size": 0.7,
            "deinterlace": False, "tone_map": True, "start": "83.5", "audio": Path("a b's.mp3"),
            "react": ("strength: bass 0.4..1.2, step-size: onset",), "codec": "hevc",
            "seed": "1 + 2*f", "quality": "fine",
        },
    )  # fmt: skip
    taken: list[Options] = []
    monkeypatch.setattr(
        "streamdream.run.dream_file", lambda *given: taken.append(given[2]) or pytest.exit
    )
    monkeypatch.setattr(cli, "check_file", lambda path: None)
    monkeypatch.setattr(cli, "report", lambda *outcome: 0)
    with pytest.raises(SystemExit):
        cli.main([str(still), "-o", str(tmp_path / "a.mp4"), *typed.flags(chosen)])
    assert taken[0].model_dump() == chosen.model_dump()
    assert {n: s.text for n, s in taken[0].schedules.items()} == {
        n: s.text for n, s in chosen.schedules.items()
    }


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        ("block9", "block"), ("block9.expand", "expand"), ("relu4_1", "relu"),
        ("layer3.2", "layer"),
        ("inception3a.branch1", "branch"), ("mixed6d", "mixed"), ("fc6", "fc"), ("stem", "stem"),
    ],
)  # fmt: skip
def test_layers_have_a_kind(layer: str, kind: str) -> None:
    assert making.kind_of(layer) == kind


Refused = Callable[..., str]


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str]) -> Refused:
    def run(*words: object) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(["atlas", *map(str, words)])
        assert ended.value.code in (2, 3, 4, 5)
        out, err = capfd.readouterr()
        assert out == ""
        assert err.startswith("streamdream: error: ")
        assert err.count("\n") == 1
        return err

    return run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "nothing is to be written; give -o atlas.html"),
        (["-o", "a.mp4"], "files of kind .mp4 cannot be written; use one of .html .htm .png"),
        (["-o", "a.html", "--sheet", "s.html"], "use one of .png .jpg .jpeg .webp"),
        (["-o", "no/a.html"], "there is no folder no; make it first"),
        (["-o", "a%05d.png"], "a contact sheet is one picture"),
        (["-o", "a.png", "--sheet", "a.png"], "is the output already"),
        (["-o", "a.html", "--layers", "block99"], "did you mean"),
        (["-o", "a.html", "--layers", "block9*0.5"], "whole layers, each by itself"),
        (["-o", "a.html", "--layers", "block9[3]"], "for channels give --channels"),
        (["-o", "a.html", "--channels", "strongest"], "channels"),
        (["-o", "a.html", "--class", "goldfish"], "class"),
        (["-o", "a.html", "--mask", "no-such.png"], "no-such.png"),
        (["-o", "a.html", "--guide", "no-such.png"], "no-such.png"),
        (["-o", "a.html", "--layers", "0: block9, 2s: block3"], "cannot move in an atlas"),
        (["-o", "a.html", "--model", "vgg99"], "no such model"),
        (["-o", "a.html", "--feature-data", "npz"], "needs a folder: --features FOLDER"),
        (["-o", "a.html", "--memory", "3"], "memory"),
        (["--features", "no/such/folder"], "make it first"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    still: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused,
    words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert message in refused(still, *words)
    assert not list(tmp_path.iterdir())


def test_files_that_are_there_are_left_alone(still: Path, tmp_path: Path, refused: Refused) -> None:
    there = tmp_path / "there.html"
    there.write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    assert "exists already" in refused(still, "-o", there)
    assert "is not empty" in refused(still, "--features", tmp_path / "full")
    assert "is a file" in refused(still, "--features", there)
    assert "is the input itself" in refused(still, "-o", still, "--overwrite")
    assert "no such file" in refused(tmp_path / "none.png", "-o", tmp_path / "a.html")
    assert str(there) in refused(there, "-o", tmp_path / "a.html")
    assert there.read_text() == "mine"


def test_a_person_is_told_how_it_went(
    still: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--layers", "block2,block9", "--work-size", "32", "--octaves", "1", "--steps", "1"]
    with pytest.raises(SystemExit) as ended:
        cli.main(["atlas", str(still), "-o", str(tmp_path / "a.html"), *words])
    assert ended.value.code == 0
    assert capfd.readouterr() == ("", "")  # nobody is watching
    assert len(commands((tmp_path / "a.html").read_text("utf-8"))) == 2
