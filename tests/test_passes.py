"""A style in several passes: to and fro, each from what the last one made, the last forward."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from disks import Full
from media import Film, frame_times, moving, packets
from PIL import Image as Pictures

from streamdream.errors import OptionError, SinkError
from streamdream.frame import Frame, Image, Pixels, Resized
from streamdream.motion import OpticalFlow
from streamdream.options import Look
from streamdream.pipeline import Carried, Drive, Effect, Picture, Settle, redraw, undriven
from streamdream.run import Silent, dream_file, read_settings
from streamdream.schedule import Clock
from streamdream.settings import build, recorded
from streamdream.sinks import Stopped
from streamdream.sources import VideoSource
from streamdream.stacks import Stack
from streamdream.style.passes import in_passes

COUNT, RATE = 5, 25


@pytest.fixture(scope="module")
def painting(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A painting with colours and strokes of its own."""
    y, x = np.mgrid[:96, :128]
    bent = 128 + 100 * np.sin((x + 6 * np.sin(y / 9)) / 2.5)
    path = tmp_path_factory.mktemp("paintings") / "waves.png"
    Pictures.fromarray(np.stack([bent, bent[::-1], bent * 0 + 60], -1).astype(np.uint8)).save(path)
    return path


@dataclass
class Seen:
    """A frame as the effect saw it: its number, and what it went on from."""

    frame: int
    known: bool
    delta: float


@dataclass
class Counting:
    """Paints every frame as much lighter as it has painted frames, and remembers them."""

    replaces: bool = True
    seen: list[Seen] = field(default_factory=list)

    def takes_part(self, options: Look) -> bool:
        return True

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        known = carried.trust is not None and bool((carried.trust == 1).all())
        # The weight is set by a schedule: it tells which frame of the film this is.
        number = round(options.style_weight - 1)
        self.seen.append(Seen(number, known, float(carried.delta.mean()) * 256))
        result = image + len(self.seen) / 256
        yield result.clone

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> None:
        return None

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        return np.full_like(pixels, round(256 * float(delta.mean())))


@pytest.mark.parametrize("passes", [2, 3, 4])
def test_passes_go_to_and_fro_and_the_last_one_forward(passes: int) -> None:
    effect, led = Counting(), list[int]()
    options = build({
        "style": "x.jpg", "work_size": 48, "style_passes": passes, "memory": 3,
        "style_weight": f"0: 1, {COUNT - 1}: {COUNT}",
    }).clocked(Clock(Fraction(RATE), COUNT))  # fmt: skip
    frames = [Frame(moving((48, 64))(0), Fraction(i, RATE), i) for i in range(COUNT)]
    motion = OpticalFlow()

    def dreamed(
        stream: Iterator[Frame], effects: Sequence[Effect], drive: Drive, settle: Settle | None
    ) -> Generator[Frame, None, None]:
        return redraw(stream, options, effects, motion, drive=drive, settle=settle)

    how = dreamed, undriven, None, lambda: led.append(1)
    made = list(in_passes(iter(frames), options, (effect,), *how))
    assert [(f.index, f.time) for f in made] == [(f.index, f.time) for f in frames]
    assert len(led) == (passes - 1) * COUNT
    assert [frame.pixels[0, 0, 0] for frame in made] == [
        (passes - 1) * COUNT + place + 1 for place in range(COUNT)
    ]
    before: dict[int, int] = {}  # what the pass before made of each frame
    for number in range(passes):
        way = effect.seen[number * COUNT : (number + 1) * COUNT]
        order = list(range(COUNT))
        assert [seen.frame for seen in way] == order[:: 1 if (passes - number) % 2 else -1]
        for place, seen in enumerate(way):
            neighbour = number * COUNT + place  # as light as that was painted
            if number == 0:
                expected = neighbour if place else 0
            elif place == 0:
                expected = before[seen.frame]
            else:
                expected = (neighbour + before[seen.frame]) / 2
            assert seen.delta == pytest.approx(expected, abs=0.1)
            assert seen.known == (number > 0 or place > 0)
        before = {seen.frame: number * COUNT + place + 1 for place, seen in enumerate(way)}


def test_what_was_taken_up_takes_no_room_on_the_disk() -> None:
    with closing(Stack("records")) as stack:
        room = list[int]()
        for size in (1000, 20, 3000):
            stack.push(bytes([size % 256]) * size)
            room.append(os.fstat(stack._file.fileno()).st_size)
        for size in (3000, 20, 1000):
            assert os.fstat(stack._file.fileno()).st_size == room.pop()
            assert stack.pop() == bytes([size % 256]) * size
        assert (len(stack), os.fstat(stack._file.fileno()).st_size) == (0, 0)


QUICK = {"work_size": 64, "style_steps": 3, "style_warm_steps": 2, "frames": 4}


def test_a_film_is_painted_twice_with_its_times_and_sound(painting: Path, tmp_path: Path) -> None:
    film = Film(languages=("eng",)).write(tmp_path / "film.mp4")
    made = []
    for name, more in {"two": {"style_passes": 2}, "again": {"style_passes": 2}, "one": {}}.items():
        target = tmp_path / f"{name}.mp4"
        outcome = dream_file(film, target, build({**QUICK, "style": str(painting), **more}))
        assert (outcome.frames, outcome.led) == (4, 4 if more else 0)
        made.append(target.read_bytes())
        assert frame_times(target) == frame_times(film)[:4]
    assert made[0] == made[1] != made[2]
    like = recorded(read_settings(tmp_path / "two.mp4"), "two.mp4")
    assert like["style_passes"] == 2
    assert len(packets(tmp_path / "two.mp4")) == len(packets(tmp_path / "one.mp4"))
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"film.mp4", "two.mp4", "again.mp4", "one.mp4"}


def test_masks_and_a_dream_on_top_are_for_the_last_pass(painting: Path, tmp_path: Path) -> None:
    film = Film().write(tmp_path / "film.mp4")
    options = build({
        **QUICK, "style": str(painting), "style_passes": 3, "dream_mix": 1, "octaves": 1,
        "mask": "polygon 0,0 0.5,0 0.5,1 0,1",
    })  # fmt: skip
    dream_file(film, tmp_path / "out_%03d.png", options)
    with VideoSource(film) as source:
        for frame in list(source)[:4]:
            picture = np.asarray(Pictures.open(tmp_path / f"out_{frame.index + 1:03d}.png"))
            right = slice(frame.pixels.shape[1] // 2 + 8, None)
            assert np.array_equal(picture[:, right], frame.pixels[:, right])
            assert not np.array_equal(picture[:, :40], frame.pixels[:, :40])


def test_a_stop_in_an_early_pass_leaves_no_film(painting: Path, tmp_path: Path) -> None:
    film = Film().write(tmp_path / "film.mp4")

    class Stops(Silent):
        def step(self, frames: int, counts: object) -> None:
            if frames >= 2:
                raise Stopped

    options = build({**QUICK, "style": str(painting), "style_passes": 2})
    outcome = dream_file(film, tmp_path / "out.mp4", options, Stops())
    assert not outcome.complete
    assert outcome.frames == 0
    assert not (tmp_path / "out.mp4").exists()


def test_a_full_disk_is_told_of(
    painting: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film = Film().write(tmp_path / "film.mp4")
    monkeypatch.setattr("streamdream.stacks.TemporaryFile", lambda *_, **__: Full())
    options = build({**QUICK, "style": str(painting), "style_passes": 2})
    with pytest.raises(SinkError, match=r"wait.*: cannot be written \(the disk is full\)"):
        dream_file(film, tmp_path / "out.mp4", options)
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"style": ()}, "is for pictures as styles that are painted by optimisation"),
        ({"style": "starry-night"}, "is for pictures as styles"),
        ({"style_method": "fast"}, "is for pictures as styles"),
        ({"loop": True}, "--loop reads its source twice"),
        ({"resume": True}, "leave out --resume"),
        ({"workers": 2}, "leave out --workers"),
    ],
)
def test_what_cannot_be_painted_in_passes_is_told(
    painting: Path, tmp_path: Path, more: dict[str, object], told: str
) -> None:
    film = Film().write(tmp_path / "film.mp4")
    options = build({**QUICK, "style": str(painting), "style_passes": 2, **more})
    with pytest.raises(OptionError, match=told):
        dream_file(film, tmp_path / "out.mp4", options)
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]
