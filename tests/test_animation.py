"""GIF, animated WebP and PNG: pictures, times, transparency, words, and a size that is kept."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from media import Film, frame_times, moving
from PIL import Image

from streamdream.animation import AnimationSink
from streamdream.errors import SinkError, SourceError
from streamdream.files import check_target, spool_of
from streamdream.frame import Pixels
from streamdream.info import Reading
from streamdream.run import read_settings
from streamdream.sinks import Stopped
from streamdream.sources import VideoSource

KINDS = ["gif", "webp", "apng"]


def animated(source: Path, target: Path, most: int | None = None, note: str = "") -> AnimationSink:
    with VideoSource(source) as reader:
        sink = AnimationSink(target, reader.info, ["audio stream 1"], most, note)
        with sink:
            for frame in reader:
                sink.write(frame)
    return sink


def shown(path: Path) -> list[tuple[int, Pixels]]:
    """How long each picture is shown, in ms, and the picture."""
    found = []
    with Image.open(path) as image:
        for index in range(getattr(image, "n_frames", 1)):
            image.seek(index)
            image.load()
            found.append((round(image.info["duration"]), np.array(image.convert("RGBA"))))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_pictures_and_times_are_kept(tmp_path: Path, kind: str) -> None:
    times = (0, 1, 2, 5, 6, 7, 11, 12)
    source = Film(moving((96, 128)), times=times, options={"crf": "1"}).write(tmp_path / "in.mp4")
    sink = animated(source, tmp_path / f"out.{kind}", note="so gemacht: grün")
    assert sink.notices == [f"audio stream 1 is left out: .{kind} holds none"]
    found = shown(tmp_path / f"out.{kind}")
    assert [ms for ms, _ in found] == [40, 40, 120, 40, 40, 160, 40, 40]
    off = [
        np.abs(p[..., :3].astype(int) - moving((96, 128))(i)).mean()
        for i, (_, p) in enumerate(found)
    ]
    assert np.mean(off) < {"gif": 8, "webp": 5, "apng": 2}[kind]
    assert not spool_of(tmp_path / f"out.{kind}").exists()
    with Image.open(tmp_path / f"out.{kind}") as image:
        assert image.info["loop"] == 0
    assert read_settings(tmp_path / f"out.{kind}") == "so gemacht: grün"


def test_a_gifs_grain_does_not_dance(tmp_path: Path) -> None:
    y, x = np.mgrid[0:96, 0:128]
    still = np.stack([x * 2, y * 2, 255 - x - y], -1).clip(0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 2, (6, 96, 128, 3), dtype=np.uint8)
    film = Film(lambda i: still // 2 + 60 + noise[i], times=range(6), options={"crf": "1"})
    animated(film.write(tmp_path / "in.mp4"), tmp_path / "out.gif")
    found = [p[..., :3].astype(int) for _, p in shown(tmp_path / "out.gif")]
    moves = [np.abs(a - b).mean() for a, b in pairwise(found)]
    assert max(moves) < 1.5


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_is_kept(tmp_path: Path, kind: str) -> None:
    veil = np.zeros((64, 96), np.uint8)
    veil[:, 48:] = 255
    names = [tmp_path / f"in{i}.png" for i in range(3)]
    for i, name in enumerate(names):
        Image.fromarray(np.dstack([moving((64, 96))(i), veil])).save(name)
    animated(tmp_path / "in%d.png", tmp_path / f"out.{kind}")
    for _, picture in shown(tmp_path / f"out.{kind}"):
        assert (picture[:, :44, 3] == 0).all()
        assert (picture[:, 52:, 3] == 255).all()


def test_more_than_browsers_show_is_thinned_out(tmp_path: Path) -> None:
    film = Film(times=range(24), time_base=Fraction(1, 60))
    source = film.write(tmp_path / "in.mp4")
    sink = animated(source, tmp_path / "out.gif")
    assert any("of 2 frames one is shown" in notice for notice in sink.notices)
    durations = [ms for ms, _ in shown(tmp_path / "out.gif")]
    assert len(durations) == 12
    assert min(durations) >= 20
    assert sum(durations) == pytest.approx(400, abs=20)


def test_pixels_are_made_square(tmp_path: Path) -> None:
    film = Film(moving((72, 96)), times=(0, 1), aspect=Fraction(4, 3))
    sink = animated(film.write(tmp_path / "in.mp4"), tmp_path / "out.webp")
    assert any("96x72 becomes 128x72" in notice for notice in sink.notices)
    assert shown(tmp_path / "out.webp")[0][1].shape == (72, 128, 4)


def busy(path: Path) -> Path:
    """A film that is hard to make small."""
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (12, 24, 32, 3), dtype=np.uint8)
    film = Film(lambda i: np.kron(coarse[i], np.ones((8, 8, 1), np.uint8)), times=range(12))
    return film.write(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.6, 0.2])
def test_a_size_is_kept_and_made_use_of(tmp_path: Path, kind: str, share: float) -> None:
    source = busy(tmp_path / "in.mp4")
    target = tmp_path / f"out.{kind}"
    animated(source, tmp_path / f"free.{kind}")
    most = round((tmp_path / f"free.{kind}").stat().st_size * share)
    sink = animated(source, target, most)
    assert most * 0.5 < target.stat().st_size <= most
    assert any("MB at" in notice for notice in sink.notices)
    assert len(shown(target)) >= 3


def test_a_size_that_cannot_be_is_told_and_leaves_the_frames(tmp_path: Path) -> None:
    source = busy(tmp_path / "in.mp4")
    with pytest.raises(SinkError, match=r"smaller than .* holds what was done"):
        animated(source, tmp_path / "out.apng", 1000)
    assert not (tmp_path / "out.apng").exists()
    assert not (tmp_path / "out.part.apng").exists()
    with av.open(str(tmp_path / "out.apng.part.mkv")) as kept:
        assert sum(1 for _ in kept.decode(video=0)) == 12
    with pytest.raises(SinkError, match="left from an interrupted run"):
        check_target(tmp_path / "out.apng")


@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_leaves_the_frames(tmp_path: Path, kind: str) -> None:
    with VideoSource(Film(times=range(8)).write(tmp_path / "in.mp4")) as reader:
        sink = AnimationSink(tmp_path / f"out.{kind}", reader.info)
        for frame in reader:
            sink.write(frame)
            if frame.index == 4:
                break
        sink.close(complete=False)
    left = tmp_path / f"out.{kind}.part.mkv"
    assert sink.part == left
    assert len(frame_times(left)) == 5
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4", left.name}


def test_making_the_file_can_be_stopped_too(tmp_path: Path) -> None:
    source = busy(tmp_path / "in.mp4")
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if "try 2" in text:
            raise Stopped

    with VideoSource(source) as reader:
        sink = AnimationSink(tmp_path / "out.gif", reader.info, most=60_000, tell=tell)
        for frame in reader:
            sink.write(frame)
        with pytest.raises(Stopped):
            sink.close()
    assert told[0] == "making the GIF"
    assert told[-1] == "fitting GIF, try 2"
    assert {p.name for p in tmp_path.iterdir()} == {"in.mp4", "out.gif.part.mkv"}
    assert len(frame_times(tmp_path / "out.gif.part.mkv")) == 12


def test_what_is_animated_can_be_read_again(tmp_path: Path) -> None:
    times = (0, 1, 2, 5, 6, 7)
    source = Film(moving((96, 128)), times=times, options={"crf": "1"}).write(tmp_path / "in.mp4")
    for kind in KINDS:
        animated(source, tmp_path / f"out.{kind}")
        with VideoSource(tmp_path / f"out.{kind}", start=Fraction(1, 50)) as back:
            assert not back.info.alpha
            frames = list(back)
        assert [f.time + Fraction(1, 50) for f in frames] == [Fraction(t, 25) for t in times[1:]]
        off = [
            np.abs(frame.pixels.astype(int) - moving((96, 128))(i + 1)).mean()
            for i, frame in enumerate(frames)
        ]
        assert np.mean(off) < 8


def test_a_damaged_animation_is_told_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Film(moving((96, 128))).write(tmp_path / "in.mp4")
    animated(source, tmp_path / "in.webp")
    whole = (tmp_path / "in.webp").read_bytes()
    (tmp_path / "half.webp").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(SourceError, match="not a whole WebP"):
        VideoSource(tmp_path / "half.webp")
    with pytest.raises(SourceError, match="--max-pixels"):
        VideoSource(tmp_path / "in.webp", reading=Reading(most=5000))
    with VideoSource(tmp_path / "in.webp") as reader:
        assert len(list(reader)) == 10
    assert list((tmp_path / "scratch").iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_transparency_that_comes_later_is_seen(tmp_path: Path, kind: str) -> None:
    frames = [np.dstack([moving((64, 96))(i), np.full((64, 96), 255, np.uint8)]) for i in range(3)]
    frames[2][:, :48, 3] = 0
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / f"{i}.png")
    source = tmp_path / f"in.{kind}"
    animated(tmp_path / "%d.png", source)
    with VideoSource(source) as reader:
        assert reader.info.alpha
        seen = list(reader)
    assert [frame.alpha is not None and frame.alpha.min() for frame in seen] == [255, 255, 0]


def test_a_row_that_is_transparent_where_nobody_looked_is_drawn_on_black(tmp_path: Path) -> None:
    for i in range(12):
        opacity = np.full((64, 96), 0 if i == 4 else 255, np.uint8)
        Image.fromarray(np.dstack([moving((64, 96))(i), opacity])).save(tmp_path / f"{i:02d}.png")
    with VideoSource(tmp_path / "%02d.png") as reader:
        assert not reader.info.alpha
        seen = list(reader)
        assert reader.counts.blackened == 1
    assert all(frame.alpha is None for frame in seen)
    assert [int(frame.pixels.max()) > 0 for frame in seen].count(False) == 1


def test_opaque_palettes_are_not_transparent(tmp_path: Path) -> None:
    for i in range(3):
        Image.fromarray(moving()(i)).quantize().save(tmp_path / f"p{i}.png")
    with VideoSource(tmp_path / "p%d.png") as reader:
        assert not reader.info.alpha
        assert len(list(reader)) == 3
        assert reader.counts.blackened == 0


def test_the_last_picture_stays_as_long_as_it_should(tmp_path: Path) -> None:
    source = Film(times=(0, 100, 350, 390), time_base=Fraction(1, 1000)).write(tmp_path / "in.mkv")
    for kind in KINDS:
        with VideoSource(source) as reader:
            sink = AnimationSink(tmp_path / f"o.{kind}", reader.info)
            with sink:
                for frame in reader:
                    lasting = Fraction(33, 100) if frame.index == 3 else frame.duration
                    sink.write(replace(frame, time=frame.time - 1, duration=lasting))
        assert [ms for ms, _ in shown(tmp_path / f"o.{kind}")] == [100, 250, 40, 330]


def test_one_picture_keeps_its_words_too(tmp_path: Path) -> None:
    source = Film(times=(0,)).write(tmp_path / "in.mp4")
    for kind in KINDS:
        animated(source, tmp_path / f"out.{kind}", note="alone")
        assert read_settings(tmp_path / f"out.{kind}") == "alone"
        with Image.open(tmp_path / f"out.{kind}") as image:
            assert image.size == (128, 72)
