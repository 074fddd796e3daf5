from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import make_clip
import numpy as np
import pytest
import torch
from media import Film

from streamdream.cuts import FLASH, Cuts, LiveShots, Turn, shots, small_of
from streamdream.frame import Frame, Pixels, Small, to_small
from streamdream.motion import OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import View, views
from streamdream.settings import build
from streamdream.sources import VideoSource


def small(index: int, light: float = 1.0) -> Small:
    return to_small((make_clip.render(index) * light).astype(np.uint8))


def told(pictures: list[Small]) -> str:
    """One letter a picture: B begins a shot, g goes on, F flashes."""
    letter = {Turn.BEGINS: "B", Turn.GOES_ON: "g", Turn.FLASH: "F"}
    return "".join(letter[turn] for _, turn in shots(pictures, lambda picture: picture))


def told_live(pictures: list[Small]) -> str:
    letter, live = {Turn.BEGINS: "B", Turn.GOES_ON: "g", Turn.FLASH: "F"}, LiveShots()
    return "".join(letter[live(picture)] for picture in pictures)


WHITE = np.full((108, 192), 250, np.uint8)


def test_a_cut_is_a_cut_and_nothing_else_is() -> None:
    cuts = Cuts()
    assert cuts.between(small(40), small(39))
    for index in (5, 21, 39, 41, 60):
        assert not cuts.between(small(index), small(index - 1))
    # A fade to black over 12 frames is not a cut.
    levels = [1 - i / 12 for i in range(13)]
    for a, b in pairwise(levels):
        assert not cuts.between(small(10, b), small(10, a))


def test_a_cut_in_dim_light_is_one_and_light_itself_is_not() -> None:
    cuts = Cuts()
    for light in (0.4, 0.2):
        assert cuts.between(small(40, light), small(39, light))
        assert not cuts.between(small(21, light), small(20, light))
    # Light that falls or rises by half at once, and a picture that comes out of the black.
    assert not cuts.between(small(21, 0.15), small(20, 0.3))
    assert not cuts.between(small(21, 0.3), small(20, 0.15))
    assert not cuts.between(small(21, 0.06), small(20, 0.0))
    grain = np.random.default_rng(0).normal(0, 2, (2, 108, 192))
    dark = [np.clip(small(20, 0.15) + g, 0, 255).astype(np.uint8) for g in grain]
    assert not cuts.between(dark[1], dark[0])


def test_a_flash_is_no_cut_as_long_as_the_shot_goes_on_behind_it() -> None:
    shot, other = [small(i) for i in range(20, 30)], [small(i) for i in range(50, 56)]
    assert told(shot) == "Bggggggggg"
    assert told([*shot[:4], WHITE, *shot[5:]]) == "BgggFggggg"
    assert told([*shot[:4], *[WHITE] * FLASH, *shot[4:]]) == "BgggFFFgggggg"
    # What lasts longer is a shot, and so is what is followed by another.
    assert told([*shot[:4], *[WHITE] * (FLASH + 1), *shot[4:6]]) == "BgggBgggBg"
    assert told([*shot[:4], WHITE, *other]) == "BgggBBggggg"
    assert told([*shot[:4], *other]) == "BgggBggggg"
    assert told([*shot[:4], WHITE]) == "BgggB"
    # A strobe: every second picture is white.
    strobe = [picture for two in shot for picture in (two, WHITE)]
    assert told([*strobe, shot[-1]]) == "B" + "Fg" * 10


def test_live_it_waits_instead_of_looking_ahead() -> None:
    shot, other = [small(i) for i in range(20, 30)], [small(i) for i in range(50, 56)]
    assert told_live([*shot[:4], WHITE, *shot[5:]]) == "BgggFggggg"
    assert told_live([*shot[:4], *[WHITE] * FLASH, *shot[4:]]) == "BgggFFFgggggg"
    assert told_live([*shot[:4], *other]) == "BgggFFFBgg"


def test_a_part_that_ends_at_a_cut_is_told_the_same() -> None:
    shot, other = [small(i) for i in range(20, 26)], [small(i) for i in range(50, 56)]
    film = [*shot[:3], WHITE, *shot[3:], *other[:2], WHITE, *other[2:]]
    whole = told(film)
    begins = [i for i, letter in enumerate(whole) if letter == "B"]
    parts = [film[a:b] for a, b in pairwise([*begins, len(film)])]
    assert len(parts) == 2
    assert "".join(told(part) for part in parts) == whole


def paint(index: int) -> Pixels:
    """Two shots, with a flash in the second."""
    if index == 8:
        return np.full((*make_clip.SIZE, 3), 250, np.uint8)
    return make_clip.render(index if index < 5 else 45 + index)


@pytest.fixture(scope="module")
def shot_film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    film = Film(paint, times=tuple(range(12)), options={"crf": "16", "preset": "ultrafast"})
    return film.write(tmp_path_factory.mktemp("cuts") / "shots.mp4")


def seen(path: Path, options: Options) -> list[View]:
    size = options.fitted_size
    with VideoSource(path, options.start, options.end, options.frames, size) as source:
        return list(views(source, options, OpticalFlow(options.flow)))


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"work_size": 32, "flow": "none"},
        {"size": "64x48", "flow": "dis-fast"},
        {"memory": 1e-3},
    ],
    ids=str,
)
def test_the_pipeline_starts_anew_where_a_shot_begins(
    shot_film: Path, given: dict[str, object]
) -> None:
    found = seen(shot_film, build({"work_size": 64, **given}))
    assert [v.number for v in found if v.movement is None] == [0, 5]
    assert [v.number for v in found if v.flash] == [8]


def test_behind_a_flash_the_dream_goes_on_from_before_it(shot_film: Path) -> None:
    found = seen(shot_film, build({"work_size": 64}))
    flash, behind = found[8], found[9]
    assert flash.movement is not None
    assert behind.movement is not None
    assert float(flash.movement.flow.abs().max()) == 0
    straight = OpticalFlow("dis").between(behind.image, found[7].image)
    assert torch.equal(behind.movement.flow, straight.flow)
    assert float(behind.movement.trust.mean()) > 0.7


def test_frames_bring_a_grey_copy_that_no_option_changes(shot_film: Path) -> None:
    copies = []
    for size in (None, (48, 64)):
        with VideoSource(shot_film, frames=3, size=size) as source:
            copies.append([small_of(frame) for frame in source])
    with VideoSource(shot_film, frames=3) as source:
        copies.append([glimpse.small() for glimpse in source.skim()])
    for a, b, c in zip(*copies, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(a, c)
    grey = small_of(Frame(paint(0), Fraction(0), 0))
    assert float(np.abs(copies[0][0].astype(float) - grey).mean()) < 3
