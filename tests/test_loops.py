"""Loops by the seam of their dream, of their source, and there and back."""

from __future__ import annotations

import math
import subprocess
import sys
import tracemalloc
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from disks import Full
from media import Film, Painter, frame_times, packets, pictures
from PIL import Image as Photo
from skimage import data

from streamdream.dream import Dream
from streamdream.errors import Error, OptionError, SinkError, SourceError
from streamdream.files import numbered
from streamdream.frame import Frame, Image, planes
from streamdream.governor import Governor, rms
from streamdream.info import Counts, VideoInfo
from streamdream.loops import Loop, Seam, between, mixed
from streamdream.motion import OpticalFlow, warp
from streamdream.options import Options
from streamdream.ping_pong import Spool, there_and_back
from streamdream.pipeline import Carried, Picture, State
from streamdream.run import Silent, dream_file
from streamdream.settings import Flags, build, chosen
from streamdream.sinks import Stopped
from streamdream.sources import VideoSource

QUICK = Options(layers=("block5",), octaves=2, work_size=96, steps=6, crf=0, device="cpu")
EXACT = {"crf": "0", "preset": "fast"}


def panorama(count: int, step: int = 4) -> Painter:
    """A wrapped photograph that comes round after `count` frames."""
    wide = cv2.resize(data.coffee(), (count * step // 2, 96), interpolation=cv2.INTER_AREA)
    ring = np.hstack([wide, wide[:, ::-1]])

    def paint(index: int) -> np.ndarray:
        return np.ascontiguousarray(np.roll(np.tile(ring, (1, 3, 1)), -step * index, 1)[:, :128])

    return paint


def looping(path: Path, count: int = 30, **more: object) -> Path:
    film = Film(panorama(count), range(count), options=EXACT, pixel_format="yuv444p")
    return replace(film, **more).write(path)  # type: ignore[arg-type]


def leaving(path: Path, count: int = 24, **more: object) -> Path:
    """One that never comes back."""
    film = Film(panorama(4 * count), range(count), options=EXACT, pixel_format="yuv444p")
    return replace(film, **more).write(path)  # type: ignore[arg-type]


def seen(path: Path) -> np.ndarray:
    return np.stack(pictures(path)).astype(np.float32)


def unrest(source: np.ndarray, result: np.ndarray) -> np.ndarray:
    """How much each frame's dream differs from that of the one before, the first's from the last's.

    After the motion, and where that can be believed.
    """
    motion, deltas = OpticalFlow(), result - source
    found = []
    for now in range(len(source)):
        move = motion.between(planes(source[now] / 255), planes(source[now - 1] / 255))
        was = warp(planes(deltas[now - 1]), move.flow)
        found.append(float(rms((planes(deltas[now]) - was) * move.trust)))
    return np.array(found)


@pytest.fixture(scope="module")
def dreams(tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """A source that loops, and it dreamed with and without --loop."""
    folder = tmp_path_factory.mktemp("loops")
    source = looping(folder / "in.mp4")
    dream_file(source, folder / "plain.mkv", QUICK)
    dream_file(source, folder / "loop.mkv", QUICK.model_copy(update={"loop": True}))
    return {name: seen(next(folder.glob(f"{name}.*"))) for name in ("in", "plain", "loop")}


def test_the_seam_of_a_loop_is_like_any_other_two_frames(dreams: dict[str, np.ndarray]) -> None:
    loop, plain = (unrest(dreams["in"], dreams[name]) for name in ("loop", "plain"))
    low, high = np.quantile(loop[1:], [0.05, 0.95])
    assert low <= loop[0] <= high
    assert plain[0] > 2 * loop[0]


def test_the_strength_of_a_loop_does_not_jump_at_its_seam(dreams: dict[str, np.ndarray]) -> None:
    strength = np.sqrt(np.square(dreams["loop"] - dreams["in"]).mean((1, 2, 3)))
    steps = np.abs(np.diff(strength))
    assert abs(strength[0] - strength[-1]) <= np.quantile(steps, 0.95)
    assert strength.max() / strength.min() < 1.1


def test_a_loop_is_repeated_bit_for_bit(tmp_path: Path, dreams: dict[str, np.ndarray]) -> None:
    source = looping(tmp_path / "in.mp4")
    dream_file(source, tmp_path / "again.mkv", QUICK.model_copy(update={"loop": True}))
    assert np.array_equal(seen(tmp_path / "again.mkv"), dreams["loop"])


@pytest.fixture
def brightened(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written without waiting for a network: each frame a little brighter."""

    def dreaming(self: Dream, image: Image, carried: Carried, *_: object) -> Iterator[Picture]:
        yield (image + 0.1).clone

    monkeypatch.setattr(Dream, "__call__", dreaming)
    monkeypatch.setattr(Dream, "response", lambda *_: torch.tensor(1.0))


class Told(Silent):
    """A listener that remembers."""

    def __init__(self) -> None:
        self.notices: list[str] = []
        self.total: int | None = None
        self.done: list[int] = []

    def notice(self, text: str) -> None:
        self.notices.append(text)

    def begin(self, info: VideoInfo) -> None:
        self.total = info.frames

    def step(self, frames: int, counts: Counts) -> None:
        self.done.append(frames)


def like(**more: object) -> Options:
    return QUICK.model_copy(update=more)


def frames_of(path: Path, options: Options, since: Fraction = Fraction(0)) -> list[Frame]:
    """The frames that are dreamed for a loop."""
    loop = Loop.of(partial(VideoSource, path), options, OpticalFlow())
    with VideoSource(path) as source:
        found = list(loop.frames(source, since))
    assert since or len(found) == loop.length
    return found


def test_the_beginning_fades_into_the_end(tmp_path: Path) -> None:
    source = leaving(tmp_path / "in.mp4")
    with VideoSource(source) as reader:
        whole = list(reader)
    found = frames_of(source, like(loop_blend=0.24))
    assert [(f.time, f.index) for f in found] == [(f.time, f.index) for f in whole[:18]]
    assert np.array_equal(found[0].pixels, whole[6].pixels)
    assert np.array_equal(found[11].pixels, whole[17].pixels)
    shares = []
    for place in range(6):
        tail, head, made = (
            p.pixels.astype(float) for p in (whole[18 + place], whole[place], found[12 + place])
        )
        shares.append(((made - tail) * (head - tail)).sum() / np.square(head - tail).sum())
        assert np.abs(made - tail - shares[-1] * (head - tail)).max() <= 1
    assert shares == pytest.approx([1 - s for s in reversed(shares)], abs=0.01)
    assert all(a < b for a, b in pairwise([0, *shares, 1]))


def test_both_passes_of_a_loop_see_the_same(tmp_path: Path) -> None:
    source = leaving(tmp_path / "in.mp4", times=[0, *range(3, 26)])
    for options in (like(loop_blend=0.2), like(loop_blend=0.4)):
        whole = frames_of(source, options)
        for since in (Fraction(12, 25), Fraction(24, 25)):
            late = frames_of(source, options, since)
            assert 0 < len(late) < len(whole)
            for a, b in zip(late, whole[-len(late) :], strict=True):
                assert (a.time, a.index) == (b.time, b.index)
                assert np.array_equal(a.pixels, b.pixels)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_what_is_transparent_does_not_shine_through(kind: type) -> None:
    most = np.iinfo(kind).max
    clear = Frame(np.full((4, 4, 3), most, kind), Fraction(0), 0, alpha=np.zeros((4, 4), kind))
    solid = Frame(np.full((4, 4, 3), 50, kind), Fraction(0), 0, alpha=np.full((4, 4), most, kind))
    found = mixed(clear, solid, 0.25)
    assert found.alpha is not None
    assert found.alpha.dtype == found.pixels.dtype == kind
    assert found.alpha == pytest.approx(most / 4, abs=1)
    assert (found.pixels == 50).all()
    assert mixed(clear, clear, 0.5).pixels.dtype == kind
    opaque = replace(clear, alpha=None), replace(solid, alpha=None)
    assert mixed(*opaque, 0.25).pixels == pytest.approx((3 * most + 50) / 4, abs=1)


def test_half_of_two_dreams_is_as_strong_as_they_are() -> None:
    one, other = torch.randn(2, 3, 64, 64) * 0.1
    assert float(rms(between(one, other, 0.5))) == pytest.approx(0.1, rel=0.05)
    assert torch.allclose(between(one, other, 1.0), other, atol=1e-6)
    assert torch.allclose(between(one, other, 0.0), one, atol=1e-6)


def test_the_end_is_drawn_to_what_waits_and_no_further(tmp_path: Path) -> None:
    image = torch.full((3, 32, 48), 0.5)
    governor = Governor.begin(image, image, torch.tensor(1.0), torch.tensor(1.0), Fraction(0))
    deltas = torch.randn(2, 100, 3, 32, 48) * 0.1
    times = [Fraction(i, 25) for i in range(100)]

    def state(turn: int, index: int) -> State:
        return State(times[index], image, deltas[turn, index], image[:1], governor)

    def frame(index: int) -> Frame:
        return Frame(np.zeros((32, 48, 3), np.uint8), times[index], index)

    with Seam(99, times[-1], Fraction(4), tmp_path) as seam:

        def settled(turn: int, index: int) -> State:
            (found,) = seam(frame(index), (state(turn, index),))
            assert found is not None
            return found

        led = [settled(0, i) for i in range(40, 100)]
        assert all(torch.equal(s.delta, deltas[0, i]) for i, s in enumerate(led, 40))
        assert [s.time for s in led] == [*times[40:99], times[99] - 4]
        assert led[-1].governor is not None
        assert led[-1].governor.look.time == governor.look.time - 4
        done = [settled(1, i) for i in range(100)]
    assert all(torch.equal(s.delta, deltas[1, i]) for i, s in enumerate(done[:75]))
    assert not torch.equal(done[76].delta, deltas[1, 76])
    assert torch.allclose(done[-1].delta, deltas[0, -1], atol=1e-3)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("brightened")
def test_without_memory_a_loop_is_what_it_is_anyway(tmp_path: Path) -> None:
    source = looping(tmp_path / "in.mp4", 12)
    outcome = dream_file(source, tmp_path / "loop.mkv", like(loop=True, memory=0.0))
    dream_file(source, tmp_path / "plain.mkv", like(memory=0.0))
    assert (outcome.led, outcome.frames) == (0, 12)
    assert np.array_equal(seen(tmp_path / "loop.mkv"), seen(tmp_path / "plain.mkv"))


@pytest.mark.usefixtures("brightened")
@pytest.mark.parametrize(
    ("more", "frames"),
    [({"loop": True}, 24), ({"loop_blend": 0.24}, 18), ({"ping_pong": True}, 46)],
)
def test_progress_comes_to_its_end(tmp_path: Path, more: dict[str, object], frames: int) -> None:
    told = Told()
    source = looping(tmp_path / "in.mp4", 24)
    outcome = dream_file(source, tmp_path / "out.mp4", like(**more), told)
    assert outcome.frames == frames == len(frame_times(tmp_path / "out.mp4"))
    assert told.total == told.done[-1] == outcome.led + frames
    assert sorted(told.done) == told.done
    assert [p.name for p in sorted(tmp_path.iterdir())] == ["in.mp4", "out.mp4"]


@pytest.mark.usefixtures("brightened")
def test_sound_stays_only_where_it_fits(tmp_path: Path) -> None:
    source = looping(
        tmp_path / "in.mp4", 24, languages=("eng",), chapters=[(0, 0.5, "One")],
        subtitles=[(0.1, 0.4, "word")], metadata={"title": "Round"},
    )  # fmt: skip
    told = Told()
    dream_file(source, tmp_path / "loop.mp4", like(loop=True), told)
    assert packets(tmp_path / "loop.mp4") == packets(source)
    assert told.notices == []
    for kind, more in (
        ("--loop-blend 0.2", {"loop_blend": 0.2}),
        ("--ping-pong", {"ping_pong": True}),
    ):
        told, out = Told(), tmp_path / f"{len(kind)}.mp4"
        dream_file(source, out, like(**more), told)
        left = "audio stream 1, subtitle stream 2, chapters"
        assert told.notices == [f"left out, as it does not fit {kind}: {left}"]
        assert packets(out) == []
        with VideoSource(out) as made:
            assert made.companions.metadata["title"] == "Round"
            assert made.companions.chapters == []


def deep(index: int, kind: type, alpha: bool) -> Frame:
    rng = np.random.default_rng(index)
    most = int(np.iinfo(kind).max)
    pixels = rng.integers(0, most, (33, 47, 3), endpoint=True).astype(kind)
    clear = rng.integers(0, most, (33, 47), endpoint=True).astype(kind) if alpha else None
    return Frame(pixels, Fraction(index * index + 1, 30), index, None, clear)


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_the_way_back_is_the_way_there_mirrored(kind: type, alpha: bool, tmp_path: Path) -> None:
    there = [deep(i, kind, alpha) for i in range(7)]
    found = list(there_and_back((f for f in there), Fraction(1, 5), tmp_path))
    assert [f.index for f in found] == list(range(12))
    for back, frame in zip(found[7:], there[5:0:-1], strict=True):
        assert back.pixels.dtype == kind
        assert np.array_equal(back.pixels, frame.pixels)
        assert (back.alpha is None) == (not alpha)
        assert alpha is False or np.array_equal(back.alpha, frame.alpha)  # type: ignore[arg-type]
    shown = [b.time - a.time for a, b in pairwise(found)]
    assert shown[6] == Fraction(1, 5)
    assert shown[7:] == shown[5:1:-1]
    assert [f.duration for f in found[7:]] == shown[5:0:-1]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_there_is_no_way_back_from_so_few(count: int) -> None:
    there = [deep(i, np.uint8, False) for i in range(count)]
    assert list(there_and_back((f for f in there), Fraction(1, 25))) == there


def test_frames_of_other_sizes_wait_too() -> None:
    frames = [deep(0, np.uint8, False), deep(1, np.uint16, True), deep(2, np.uint8, False)]
    frames[2] = replace(frames[2], pixels=np.zeros((8, 12, 3), np.uint8))
    with closing(Spool()) as spool:
        for frame in frames:
            spool.push(frame)
        for frame in reversed(frames):
            assert np.array_equal(spool.pop().pixels, frame.pixels)
        assert len(spool) == 0


@pytest.mark.usefixtures("brightened")
def test_a_variable_rate_is_mirrored_in_the_file(tmp_path: Path) -> None:
    times = (0, 1, 2, 5, 6, 7, 11, 12)
    source = leaving(tmp_path / "in.mp4", times=times)
    dream_file(source, tmp_path / "out.mp4", like(ping_pong=True))
    ticks = [t * 25 for t in frame_times(tmp_path / "out.mp4")]
    assert ticks == [*times, 13, 14, 18, 19, 20, 23]
    found = seen(tmp_path / "out.mp4")
    assert np.abs(found[8:] - found[6:0:-1]).mean() < 1


@pytest.mark.usefixtures("brightened")
@pytest.mark.parametrize("more", [{"loop": True}, {"loop_blend": 0.1}, {"ping_pong": True}])
@pytest.mark.parametrize("name", ["out.gif", "out.webp", "out.apng", "row/%03d.png"])
def test_pictures_loop_as_well(tmp_path: Path, name: str, more: dict[str, object]) -> None:
    source = looping(tmp_path / "in.mp4", 12)
    outcome = dream_file(source, tmp_path / name, like(crf=None, **more))
    wanted = {"loop": 12, "loop_blend": 9, "ping_pong": 22}[next(iter(more))]
    assert outcome.frames == wanted
    if name.startswith("row"):
        assert numbered(tmp_path / name, wanted).exists()
        assert not numbered(tmp_path / name, wanted + 1).exists()
    else:
        with Photo.open(tmp_path / name) as made:
            assert getattr(made, "n_frames", 1) == wanted
    assert not list(tmp_path.glob("*.part*"))


def jumping(path: Path) -> Path:
    """Ends in another place than it began, by cut."""
    paint = panorama(36)

    def dark(index: int) -> np.ndarray:
        return paint(index) if index < 18 else 255 - paint(index)[:, ::-1]

    return Film(dark, range(24), options=EXACT, pixel_format="yuv444p").write(path)


@pytest.mark.parametrize(
    ("more", "kind", "told"),
    [
        ({"loop": True}, SourceError,
         r"its last frame does not lead to its first; use --loop-blend 1 or --ping-pong"),
        ({"loop_blend": 0.6}, OptionError,
         r"--loop-blend 0.6: is more than half of the 0.96 s that there are; give fewer seconds"),
        ({"loop_blend": 30.0}, OptionError, r"--loop-blend 30: is more than half"),
        ({"loop": True, "frames": 1}, OptionError, r"--loop: one picture is no loop; leave it out"),
        ({"loop_blend": 1.0, "frames": 1}, OptionError, r"--loop-blend 1: one picture is no loop"),
        ({"ping_pong": True, "frames": 1}, OptionError, r"--ping-pong: one picture is no loop"),
        ({"loop": True, "end": Fraction(1, 50)}, OptionError, r"--loop: one picture is no loop"),
    ],
)  # fmt: skip
def test_what_cannot_loop_is_told_before_the_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    more: dict[str, object], kind: type[Error], told: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("streamdream.backbone.load", lambda *_: pytest.fail("it was loaded"))
    source = jumping(tmp_path / "in.mp4")
    with pytest.raises(kind, match=told):
        dream_file(source, tmp_path / "out.mp4", like(**more))
    assert [p.name for p in tmp_path.iterdir()] == ["in.mp4"]


def test_a_photo_is_no_loop(tmp_path: Path) -> None:
    Photo.fromarray(panorama(36)(0)).save(tmp_path / "in.png")
    with pytest.raises(OptionError, match="--ping-pong: one picture is no loop"):
        dream_file(tmp_path / "in.png", tmp_path / "out.png", like(crf=None, ping_pong=True))


@pytest.mark.parametrize("other", [{"loop_blend": 1.0}, {"ping_pong": True}])
def test_a_loop_is_of_one_kind(other: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="only one of --loop, --loop-blend and --ping-pong"):
        build({"loop": True, **other})
    # What a file says and what is typed meet only in the end.
    with pytest.raises(OptionError, match="only one of"):
        chosen(Options, Flags(**other), like={"loop": True})  # type: ignore[arg-type]


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.nan, math.inf])
def test_a_blend_takes_time(seconds: float) -> None:
    with pytest.raises(OptionError, match="--loop-blend"):
        build({"loop_blend": seconds})


def piped(source: Path, target: Path, *options: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "streamdream", "-", "-o", str(target), *options]
    with open(source, "rb") as given:
        return subprocess.run(command, stdin=given, capture_output=True, check=False)


def test_what_comes_once_cannot_be_read_twice(tmp_path: Path) -> None:
    source = looping(tmp_path / "in.mkv", 12)
    found = piped(source, tmp_path / "out.mkv", "--loop-blend", "0.1")
    assert found.returncode == SourceError.exit_code
    assert found.stderr.decode() == (
        "streamdream: error: standard input: comes only once, --loop-blend 0.1 reads it twice; "
        "save it as a file first, or use --ping-pong\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["in.mkv"]


def test_a_stream_without_a_length_comes_once_too(tmp_path: Path) -> None:
    source = looping(tmp_path / "in.mkv", 12, container_options={"live": "1"})
    with pytest.raises(SourceError, match="comes only once, --loop reads it twice"):
        dream_file(f"file://{source}", tmp_path / "out.mkv", like(loop=True))


@pytest.mark.usefixtures("brightened")
def test_a_jump_in_the_source_is_told_of(tmp_path: Path) -> None:
    paint = panorama(12)

    def lit(index: int) -> np.ndarray:
        light = np.linspace(0, 2 * index, 128)[None, :, None]
        return np.clip(paint(index) * 0.6 + light, 0, 255).astype(np.uint8)

    source = Film(lit, range(12), options=EXACT, pixel_format="yuv444p").write(tmp_path / "in.mp4")
    told = Told()
    dream_file(source, tmp_path / "out.mp4", like(loop=True), told)
    line = "its last frame does not lead to its first without a jump; use --loop-blend 1 or "
    assert told.notices == [line + "--ping-pong to have none"]


@pytest.mark.usefixtures("brightened")
@pytest.mark.parametrize(
    ("more", "where", "what"),
    [
        ({"ping_pong": True}, "streamdream.stacks.TemporaryFile", "frames that wait"),
        ({"loop": True}, "streamdream.loops.SpooledTemporaryFile", "dream that waits"),
    ],
)
def test_a_full_disk_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    more: dict[str, object], where: str, what: str,
) -> None:  # fmt: skip
    source = looping(tmp_path / "in.mp4", 24)
    monkeypatch.setattr(where, lambda *_, **__: Full())
    with pytest.raises(SinkError, match=rf"{what}.*: cannot be written \(the disk is full\)"):
        dream_file(source, tmp_path / "out.mp4", like(**more))
    left = {p.name for p in tmp_path.iterdir()} - {"in.mp4"}
    assert left == ({"out.part.mp4"} if "ping_pong" in more else set())


class Stopping(Silent):
    """A listener that stops the run after so many frames."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    def step(self, frames: int, counts: Counts) -> None:
        if frames >= self.frames:
            raise Stopped


@pytest.mark.usefixtures("brightened")
@pytest.mark.parametrize("after", [5, 20])
def test_a_stopped_way_leaves_what_was_done(tmp_path: Path, after: int) -> None:
    source = looping(tmp_path / "in.mp4", 12)
    outcome = dream_file(source, tmp_path / "out.mp4", like(ping_pong=True), Stopping(after))
    assert (outcome.frames, outcome.complete) == (after, False)
    assert len(frame_times(tmp_path / "out.part.mp4")) == after
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.part.mp4"]


@pytest.mark.usefixtures("brightened")
@pytest.mark.parametrize(("after", "left"), [(5, 0), (30, 6)])
def test_a_stopped_loop_leaves_what_was_done(tmp_path: Path, after: int, left: int) -> None:
    source = looping(tmp_path / "in.mp4", 24)
    outcome = dream_file(source, tmp_path / "out.mkv", like(loop=True), Stopping(after))
    assert (outcome.frames, outcome.complete) == (left, False)
    assert [p.name for p in tmp_path.glob("out*")] == ["out.part.mkv"] * bool(left)


def test_frames_wait_on_the_disk_not_in_memory(tmp_path: Path) -> None:
    def noise() -> Generator[Frame, None, None]:
        rng = np.random.default_rng(0)
        for index in range(60):
            pixels = rng.integers(0, 256, (180, 320, 3), dtype=np.uint8)
            yield Frame(pixels, Fraction(index, 25), index)

    tracemalloc.start()
    try:
        count = sum(1 for _ in there_and_back(noise(), Fraction(1, 25), tmp_path))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 118
    assert most < 12 * 180 * 320 * 3
