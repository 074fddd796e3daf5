"""The package's presets: how they are shown, that they differ, and that they follow each other."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from fractions import Fraction
from io import BytesIO, StringIO
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from make_thumbnails import MOST, PHOTO
from PIL import Image
from rich.console import Console

from streamdream import cli
from streamdream.atlas import gallery
from streamdream.atlas.options import PresetsOptions
from streamdream.atlas.plates import Plate, dream_plates
from streamdream.atlas.presets import make_presets
from streamdream.backbone import Backbone
from streamdream.errors import OptionError
from streamdream.frame import Bytes, Frame, to_image, to_pixels
from streamdream.frame import Image as Picture
from streamdream.options import Options
from streamdream.schedule import Clock, Moment
from streamdream.settings import build, made, preset_names, preset_picture, preset_told, read_preset
from streamdream.zoom.options import ZoomOptions

NAMES = preset_names()
TINY = {"work_size": 32, "octaves": 1, "steps": 1}


def shown(name: str, kind: type[Options] | type[ZoomOptions] = Options) -> Bytes:
    """The package's picture of a preset."""
    return np.asarray(Image.open(BytesIO(preset_picture(name, kind))).convert("RGB"))


def test_there_are_many_and_each_tells_of_itself() -> None:
    assert len(NAMES) >= 12
    for kind in gallery.KINDS:
        for name in preset_names(kind):
            told = preset_told(name, kind)
            assert 10 < len(told) < 90, name
            assert told.endswith("."), name
            assert len(preset_picture(name, kind)) < MOST, name


def test_none_looks_like_another(lite0: Backbone) -> None:
    """By what the network sees in them, at several depths, and by their colours.

    They are further apart than dreams of one preset with different seeds are.
    """
    layers = ("stem", "block2", "block4", "block8", "block12")

    def seen_in(picture: Bytes) -> list[torch.Tensor]:
        with torch.no_grad():
            seen = lite0(to_image(picture, (216, 288)), layers)
        energies = [seen[layer][0].square().mean((1, 2)).add(1e-6).log() for layer in layers]
        colours = picture.reshape(-1, 3).astype(np.float32) / 255
        return [*energies, torch.from_numpy(np.concatenate([colours.mean(0), colours.std(0)]))]

    def distance(a: list[torch.Tensor], b: list[torch.Tensor]) -> float:
        return max(float((x - y).square().mean().sqrt()) for x, y in zip(a, b, strict=True))

    found = {name: seen_in(shown(name)) for name in NAMES}
    distances = {(a, b): distance(found[a], found[b]) for a, b in combinations(NAMES, 2)}
    nearest = min(distances, key=lambda pair: distances[pair])
    seeds = [distance(found[name], seen_in(made_anew(name, seed=1))) for name in ("eyes", "maze")]
    assert distances[nearest] > 1.2 * max(seeds), (nearest, distances[nearest], seeds)


def made_anew(name: str, **values: object) -> Bytes:
    """The picture of a preset as it is today."""
    from skimage import data

    kept: list[Bytes] = []
    frame = Frame(np.ascontiguousarray(data.chelsea()[PHOTO]), Fraction(0), 0)
    plate = Plate(name, made(Options, read_preset(name), values), "")
    list(dream_plates([plate], frame, torch.device("cpu"), lambda _, d: kept.append(d.pixels)))
    return np.asarray(Image.fromarray(kept[0]).resize((288, 216), Image.Resampling.BOX))


@pytest.mark.parametrize("name", ["engraving", "maze", "mosaic"])
def test_a_picture_is_what_the_preset_makes(name: str) -> None:
    source = shown("photograph").astype(float)
    change = [picture - source for picture in (shown(name), made_anew(name))]
    assert np.corrcoef(change[0].ravel(), change[1].ravel())[0, 1] > 0.9


def test_every_preset_can_follow_every_other_in_a_video() -> None:
    for a, b in combinations(NAMES, 2):
        if "classic" in (a, b):  # has another network
            with pytest.raises(OptionError, match="model differs"):
                read_preset(f"0: {a}, 2s: {b}")
            continue
        for first, second in ((a, b), (b, a)):
            moving = build(read_preset(f"0: {first}, 2s: {second} ease"))
            moving = moving.clocked(Clock(Fraction(25), 100))
            for seconds in (0, 1, 3):
                moving.at(Moment(Fraction(seconds), 25 * seconds))


@pytest.mark.parametrize(("first", "second"), [("eyes", "goldfish"), ("shadows", "beads")])
def test_presets_fade_from_what_one_has_and_the_other_has_not(
    first: str, second: str, photo: Picture
) -> None:
    frame = Frame(to_pixels(photo), Fraction(0), 0)

    def dreamed(preset: str, seconds: int = 0) -> Bytes:
        kept: list[Bytes] = []
        values = {**TINY, "steps": 4, "work_size": 96, "octaves": 2, "step_size": 3}
        look = build(read_preset(preset), values).clocked(Clock(Fraction(25), 100))
        at = look.at(Moment(Fraction(seconds), 25 * seconds))
        plate = Plate("", at, "")
        list(dream_plates([plate], frame, torch.device("cpu"), lambda _, d: kept.append(d.pixels)))
        return kept[0].astype(float) - frame.pixels

    def alike(a: Bytes, b: Bytes) -> float:
        return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])

    moving = f"0: {first}, 2s: {second}"
    begin, end, both = dreamed(first), dreamed(second), dreamed(moving, 1)
    # An ascent grows the smallest difference: a step of 3.0001 grey levels instead of 3 gives 0.91.
    assert alike(dreamed(moving, 0), begin) > 0.85
    assert alike(dreamed(moving, 2), end) > 0.85
    assert alike(begin, end) < 0.7
    assert min(alike(both, begin), alike(both, end)) > alike(begin, end)


def test_masks_of_two_presets_cannot_fade(tmp_path: Path) -> None:
    for name, mask in (("a", "luminance 0..0.4"), ("b", "luminance 0.5..1")):
        (tmp_path / f"{name}.toml").write_text(f'mask = "{mask}"')
    with pytest.raises(OptionError, match="mask differs"):
        read_preset(f"0: {tmp_path}/a.toml, 2s: {tmp_path}/b.toml")


def test_a_page_shows_all_presets_as_they_come(tmp_path: Path) -> None:
    target = tmp_path / "presets.html"
    outcome = make_presets(None, target, PresetsOptions())
    page = target.read_text("utf-8")
    assert outcome.pictures == page.count("<figure") == len(NAMES) + len(preset_names(ZoomOptions))
    for name in NAMES:
        assert f"<h2>{name}</h2>" in page
    assert 'data-kind="zoom"' in page
    sheet = tmp_path / "presets.jpg"
    make_presets(None, sheet, PresetsOptions())
    with Image.open(sheet) as drawn:
        assert drawn.size[0] > 1200


def test_a_page_shows_what_presets_make_of_a_picture(
    photo: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gallery, "preset_names", _few)
    source, target = tmp_path / "it's.png", tmp_path / "mine.html"
    Image.fromarray(to_pixels(photo)).save(source)
    with pytest.raises(SystemExit) as ended:
        cli.main([
            "presets", str(source), "-o", str(target), "--octaves", "1", "--steps", "1",
            "--work-size", "48",
        ])  # fmt: skip
    assert ended.value.code == 0
    page = target.read_text("utf-8")
    assert page.count("<figure") == 3
    options = PresetsOptions.model_validate({"octaves": 1, "steps": 1, "work_size": 48})
    from streamdream.atlas.making import subject_of
    from streamdream.atlas.presets import plates_of

    plates = plates_of(subject_of(str(source), options), options)
    words = shlex.split(plates[1].command)
    assert words[1:4] == [str(source), "-o", "it's-maze.png"]
    assert words[4:6] == ["--preset", "maze"]
    assert plates[1].options.chosen_layers == ("block2",)
    assert plates[1].options.octaves == 1
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.main(words[1:])
    assert ended.value.code == 0
    kept: list[Bytes] = []
    frame = subject_of(str(source), options).frame
    list(dream_plates(plates[1:2], frame, torch.device("cpu"), lambda _, d: kept.append(d.pixels)))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "it's-maze.png")), kept[0])


def _few(kind: type[Options] | type[ZoomOptions] = Options) -> tuple[str, ...]:
    return ("engraving", "maze", "shadows") if kind is Options else ("vortex",)


def test_they_are_listed_in_words_for_programs(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["presets"])
    assert ended.value.code == 0
    lines = capfd.readouterr().out.splitlines()
    assert len(lines) == len(NAMES) + len(preset_names(ZoomOptions))
    assert lines[NAMES.index("eyes")] == (
        "streamdream --preset eyes\tEyes, fur and snouts everywhere: the classic.\t--layers block9"
    )
    assert lines[-1].startswith("streamdream zoom --preset vortex\t")


def test_pictures_on_a_terminal_are_those_of_the_presets() -> None:
    picture = np.zeros((8, 8, 3), np.uint8)
    picture[:4], picture[4:] = (250, 10, 20), (10, 20, 250)
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    out = StringIO()
    console = Console(file=out, force_terminal=True, color_system="truecolor", width=20)
    console.print(gallery.blocks(file.getvalue(), 2))
    assert out.getvalue().count("▀") == 2  # two pixels high, two wide
    assert "38;2;250;10;20;48;2;10;20;250" in out.getvalue()


Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photo.png"], "nothing is to be written; give -o presets.html"),
        (["-o", "a.html", "--steps", "3"], "--steps: changes nothing without a picture; name one"),
        (["-o", "a.mp4"], "files of kind .mp4 cannot be written"),
        (["none.png", "-o", "a.html"], "none.png: no such file"),
        (["photo.png", "-o", "a.html", "--octaves", "0"], "--octaves 0"),
    ],
)
def test_wrong_words_are_told_in_one_line(
    photo: Picture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str], words: list[str], message: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Image.fromarray(to_pixels(photo)).save("photo.png")
    with pytest.raises(SystemExit) as ended:
        cli.main(["presets", *words])
    assert ended.value.code in (2, 3, 4)
    err = capfd.readouterr().err
    assert message in err
    assert err.count("\n") == 1
