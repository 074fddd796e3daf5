"""Zoom movies: known motion, loops that close, movies that last."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import zoom as measure  # benchmarks/zoom.py
from media import frame_times, pictures
from numpy.typing import NDArray
from PIL import Image as Pillow

from streamdream.backbone import Backbone
from streamdream.dream import Dream
from streamdream.errors import Error, OptionError, SourceError
from streamdream.frame import Frame, Image, interleaved, planes, to_image
from streamdream.noises import noise
from streamdream.polish.options import NOISES
from streamdream.run import read_settings
from streamdream.settings import made, preset_names, read_preset, recorded
from streamdream.zoom.arrivals import Arrival
from streamdream.zoom.balance import Tone, balanced
from streamdream.zoom.camera import (
    Matrix,
    Rates,
    flow_of,
    growth,
    inside,
    mirrored,
    places,
    resampled,
    similarity,
)
from streamdream.zoom.fall import Canvas, Plan, fall
from streamdream.zoom.movie import begun, planned, walking, zoom_file
from streamdream.zoom.named import NAMES
from streamdream.zoom.options import ZoomOptions

Map = NDArray[np.float64]
SIZE = (96, 128)
TINY: dict[str, object] = {"size": "128x96", "octaves": 3, "rate": "12"}


def options(**given: object) -> ZoomOptions:
    return made(ZoomOptions, TINY, given)


def analytic(x: Map, y: Map) -> Image:
    """A picture that is known at every place, with waves of 16 to 25 pixels."""
    waves = np.sin(x / 3) * np.cos(y / 4), np.sin((x + y) / 3), np.cos(np.hypot(x - 60, y - 50) / 3)
    return planes(np.dstack([0.5 + 0.3 * wave for wave in waves]).astype(np.float32))


def grid(size: tuple[int, int] = SIZE) -> tuple[Map, Map]:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return x, y


def seen_through(matrix: Matrix, size: tuple[int, int] = SIZE) -> Image:
    x, y = grid(size)
    at = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1)]
    return analytic(at[0], at[1])


@pytest.fixture(scope="module")
def coffee(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data

    path = tmp_path_factory.mktemp("photos") / "coffee.png"
    Pillow.fromarray(data.coffee()).resize((300, 200)).save(path)
    return path


@pytest.fixture(scope="module")
def cat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from skimage import data

    path = tmp_path_factory.mktemp("photos") / "cat.jpg"
    Pillow.fromarray(data.chelsea()).resize((225, 150)).save(path)
    return path


def film_of(lite0: Backbone, source: object, given: ZoomOptions) -> tuple[Plan, list[Frame]]:
    start = begun(str(source), given)
    plan = planned(start, walking(given))
    return plan, list(fall(start.image, plan, Dream(lite0)))


# The camera


@pytest.mark.parametrize(
    ("rates", "count"),
    [
        (Rates(zoom=1.5), 20),
        (Rates(zoom=0.8), 20),
        (Rates(zoom=1.02), 48),  # less than a fiftieth of a pixel a frame, nearly everywhere
        (Rates(rotate=20), 24),
        (Rates(zoom=1.2, rotate=-30, pan=(0.05, 0.1), centre=(0.3, 0.6)), 12),
    ],
)
def test_many_steps_are_the_one_long_motion(rates: Rates, count: int) -> None:
    step = similarity(rates, 1 / 24, SIZE)
    x, y = places(step, SIZE)
    image = analytic(*grid())
    for _ in range(count):
        image = resampled(image, x, y)
    whole = np.linalg.matrix_power(step, count)
    there = inside(*places(whole, SIZE), SIZE)
    within = slice(24, -24)
    off = (image - seen_through(whole))[:, within, within]
    if there is not None:  # what has come in from beyond is not known
        known = cv2.erode(there[0].numpy(), np.ones((13, 13)))[within, within] == 1
        off = off[:, torch.from_numpy(known)]
    assert float(off.square().mean().sqrt()) < 0.008
    again = similarity(rates, count / 24, SIZE)
    assert growth(whole) == pytest.approx(growth(again))


def test_the_named_directions_are_what_is_seen() -> None:
    h, w = SIZE

    def moved(right: float, down: float) -> Map:
        return np.array([(w - 1) / 2 + right, (h - 1) / 2 + down, 1])

    # Things that were up are right after a quarter turn clockwise.
    was = similarity(Rates(rotate=90), 1, SIZE) @ moved(20, 0)
    assert was == pytest.approx(moved(0, -20))
    # What is 20 px from the middle was 10 px from it, at twice the size.
    was = similarity(Rates(zoom=2), 1, SIZE) @ moved(20, 0)
    assert was == pytest.approx(moved(10, 0))
    # A camera that goes right sees what was right of it.
    was = similarity(Rates(pan=(0.1, 0)), 1, SIZE) @ moved(0, 0)
    assert was == pytest.approx(moved(0.1 * w, 0))
    corner = np.array([-0.5, -0.5, 1])  # the upper left corner stays where it is the centre
    assert similarity(Rates(zoom=3, rotate=50, centre=(0, 0)), 1, SIZE) @ corner == pytest.approx(
        corner
    )
    flow = flow_of(similarity(Rates(pan=(0.5, -0.25)), 1, SIZE), SIZE)
    assert flow[:, 3, 4].tolist() == pytest.approx([64, -24])


@pytest.mark.parametrize("amount", [0.001, 0.01, 0.02, 0.3, 0.5])
def test_a_shift_of_any_size_is_that_shift(amount: float) -> None:
    step = np.eye(3)
    step[0, 2] = amount
    moved = resampled(analytic(*grid()), *places(step, SIZE))
    off = (moved - seen_through(step))[:, 8:-8, 8:-8].abs().max()
    assert float(off) < 0.002 + 0.01 * amount


def test_hundreds_of_steps_soften_nothing_that_they_need_not() -> None:
    step = similarity(Rates(rotate=3), 1 / 24, (200, 200))
    x, y = places(step, (200, 200))
    image = planes(np.random.default_rng(1).normal(0.5, 0.1, (200, 200, 3)).astype(np.float32))
    image = planes(cv2.GaussianBlur(interleaved(image), (0, 0), 1.5))
    middle = slice(70, -70)
    before = measure.sharpness((interleaved(image)[middle, middle] * 255).astype(np.uint8))
    for _ in range(240):
        image = resampled(image, x, y)
    after = measure.sharpness((interleaved(image)[middle, middle] * 255).astype(np.uint8))
    assert 0.8 < after / before < 1.1


@pytest.mark.parametrize("zoom", ["1.3", "0: 1.1, 2.5s: 2 hold", "0: 1, 100%: 2 ease", "1 + 0.3*t"])
def test_the_movie_ends_at_the_same_place_at_any_rate(zoom: str) -> None:
    ends = []
    for rate in ("24", "30000/1001", "60"):
        given = options(zoom=zoom, rate=rate, duration="5")
        plan = planned(begun("noise", given), given)
        ends.append(math.prod(growth(step) for step in plan.steps[: plan.count]))
    assert max(ends) / min(ends) < 1.001
    if zoom == "1.3":
        assert ends[0] == pytest.approx(1.3**5)


# What lies beyond the edges


def test_nothing_black_and_no_smear_comes_in_from_the_edges() -> None:
    rng = np.random.default_rng(0)
    image = planes(rng.uniform(0.4, 0.6, (*SIZE, 3)).astype(np.float32))
    for rates in (Rates(rotate=90), Rates(zoom=0.5), Rates(pan=(0.5, 0.3))):
        canvas = Canvas.of(image, (0, 0))
        step = similarity(rates, 1 / 24, SIZE)
        for index in range(24):
            canvas = canvas.moved(step, (0, index))
        seen = interleaved(canvas.image)
        assert seen.min() > 0.2
        assert seen.max() < 0.8
        # A smear is alike along its streak: neighbours differ as they did everywhere.
        for strip in (seen[:, -12:], seen[-12:].transpose(1, 0, 2)):
            rough = np.abs(np.diff(strip, axis=1)).mean()
            assert rough > 0.3 * np.abs(np.diff(seen[30:60, 40:80], axis=1)).mean()


def test_what_is_uncovered_goes_on_without_an_edge(photo: Image) -> None:
    size = photo.shape[-2], photo.shape[-1]
    step = np.eye(3)
    step[0, 2] = 6.0
    moved = Canvas.of(photo, (0, 0)).moved(step, (0, 1)).image
    column = size[1] - 6
    jump = float((moved[..., column] - moved[..., column - 1]).abs().mean())
    usual = (moved[..., 1:] - moved[..., :-1]).abs().mean((0, 1))
    assert jump < 3 * float(usual.max())
    assert mirrored(np.array([[-2, 0, 9, 11]], np.float32), 10).tolist() == [[2, 0, 9, 7]]


# Starts


@pytest.mark.parametrize("name", NAMES)
def test_noise_is_of_its_kind_and_the_seeds(name: str) -> None:
    found = noise(name, (128, 160), [3])
    assert found.shape == (128, 160, 3)
    assert found.min() >= 0
    assert found.max() <= 1
    assert found.mean() == pytest.approx(0.47, abs=0.03)
    assert np.array_equal(found, noise(name, (128, 160), [3]))
    assert not np.array_equal(found, noise(name, (128, 160), [4]))


def test_kinds_of_noise_have_their_spectra() -> None:
    def bands(name: str) -> list[float]:
        grey = noise(name, (256, 256), [1])[..., 0]
        power = np.abs(np.fft.fft2(grey - grey.mean())) ** 2
        pitch = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256)[None])
        edges = [1 / 64, 1 / 32, 1 / 8, 1 / 4, 1 / 2]
        return [float(power[(pitch >= a) & (pitch < b)].mean()) for a, b in pairwise(edges)]

    white = bands("gaussian")
    assert max(white) / min(white) < 1.5
    low, *_, high = bands("pink")
    assert low / high == pytest.approx((0.375 / 0.0234) ** 2, rel=0.4)  # 1/f in amplitude
    below, inside_band, above, _ = bands("band-limited")
    assert inside_band > 100 * max(below, above)
    assert np.unique(noise("salt-and-pepper", (64, 64), [0])) == pytest.approx([0, 0.47, 1])
    assert noise("uniform", (64, 64), [0]).std() == pytest.approx(0.2, abs=0.01)
    assert len({noise(name, (8, 8), [0]).tobytes() for name in NOISES}) == len(NOISES)


def test_a_picture_fills_its_canvas_and_keeps_its_shape(coffee: Path, tmp_path: Path) -> None:
    assert begun(str(coffee), ZoomOptions()).image.shape == (3, 200, 300)
    square = begun(str(coffee), ZoomOptions(size="200x200")).image
    whole = to_image(np.asarray(Pillow.open(coffee)), (200, 300))
    assert float((square - whole[:, :, 50:250]).abs().mean()) < 0.01
    tall = tmp_path / "tall.jpg"
    Pillow.new("RGB", (1200, 2400), (200, 30, 60)).save(tall)
    assert begun(str(tall), ZoomOptions()).image.shape == (3, 960, 480)


# Balance


def test_light_and_colour_come_back(photo: Image) -> None:
    tone, image = Tone.of(photo), (photo * 0.5 + 0.3).clamp(0, 1)
    for _ in range(96):
        image = balanced(image, tone, 1 / 24)
    found = Tone.of(image)
    assert float((found.mean - tone.mean).abs().max()) < 0.02
    assert float((found.deviation / tone.deviation - 1).abs().max()) < 0.1
    dull = Tone.of(photo * 0.1 + 0.4)
    assert dull.lively().deviation.flatten().tolist() == pytest.approx([0.1] * 3)
    assert tone.lively().deviation.tolist() == tone.deviation.tolist()
    grey = photo * 0 + 0.5  # nothing to stretch
    assert float(balanced(grey, tone, 1.0).std((1, 2)).max()) < 1e-6


@pytest.mark.slow
def test_a_movie_from_noise_lasts(lite0: Backbone) -> None:
    given = options(duration="16.667", zoom=1.25)
    start = begun("noise", given)
    plan = planned(start, given)
    seen = measure.Seen()
    for _frame in measure.watched(fall(start.image, plan, Dream(lite0)), plan, seen):
        pass
    assert measure.lasting(seen, 100)


def test_how_much_is_dreamed_in_a_second_is_the_same_at_any_rate(lite0: Backbone) -> None:
    found = []
    for rate in ("8", "24"):
        given = options(duration="1", rate=rate, zoom=1, lead_in="0", jitter=0)
        _, frames = film_of(lite0, "pink", given)
        change = frames[-1].pixels.astype(int) - frames[0].pixels
        found.append(np.abs(change).mean())
    assert found[0] == pytest.approx(found[1], rel=0.25)


# Loops and journeys


@pytest.mark.slow
@pytest.mark.parametrize(
    "given",
    [
        {"source": "photo"},
        {"source": "noise", "zoom": 1.5, "rotate": 20},
        {"source": "noise", "zoom": 1, "pan_x": 0.1},
        {"source": "noise", "zoom": 0.8},
    ],
    ids=["photo", "turning", "pan", "out"],
)
def test_the_last_frame_leads_to_the_first_like_any_other(
    lite0: Backbone, coffee: Path, given: dict[str, object]
) -> None:
    given = dict(given)
    source = given.pop("source")
    given |= {"loop": True, "rate": "16", "duration": "4"}
    if source == "noise":
        given["lead_in"] = "3"
    plan, frames = film_of(lite0, coffee if source == "photo" else source, options(**given))
    changes = [measure.change(b.pixels, a.pixels, plan.steps[b.index]) for a, b in pairwise(frames)]
    seam = measure.change(frames[0].pixels, frames[-1].pixels, plan.steps[plan.count])
    low, high = np.quantile(changes, [0.05, 0.95])
    # A tenth of leave: other processors dream other pictures.
    assert 0.9 * low <= seam <= 1.1 * high
    layers = options().chosen_layers
    strength = [measure.strength(lite0, frame.pixels, layers) for frame in frames]
    jump = abs(strength[0] - strength[-1])
    assert jump <= 1.5 * np.quantile(np.abs(np.diff(strength)), 0.95)
    # It is no loop that stands still.
    far = measure.change(frames[plan.count // 2].pixels, frames[0].pixels, np.eye(3))
    assert far > 4 * seam


def test_a_journey_arrives_where_it_says(lite0: Backbone, coffee: Path, cat: Path) -> None:
    given = options(through=f"{cat},{coffee}", duration="3", zoom=1.5)
    _, frames = film_of(lite0, "noise", given)
    for path, index in ((cat, 12), (coffee, 24)):
        picture = interleaved(begun(str(path), given).image)

        def alike(frame: Frame, other: np.ndarray = picture) -> float:
            return float(np.corrcoef(frame.pixels.ravel(), other.ravel())[0, 1])

        assert alike(frames[index]) > 0.85
        assert alike(frames[index - 6]) < 0.6
        assert alike(frames[min(index + 10, 35)]) < 0.8


def test_a_picture_that_arrives_shows_no_frame(photo: Image) -> None:
    size = photo.shape[-2], photo.shape[-1]
    steps = [similarity(Rates(zoom=2), 1 / 12, size)] * 25
    arrival = Arrival(photo, 0, 24)
    for frame in range(1, 24):
        x, y = places(np.linalg.matrix_power(np.linalg.inv(steps[0]), 24 - frame), size)
        weight = arrival._weight(x, y, frame)[0].numpy()
        steep = max(np.abs(np.diff(weight, axis=axis)).max() for axis in (0, 1))
        assert steep < 0.3
        assert weight.max() <= 1
    canvas = photo * 0
    for frame in range(1, 24):
        canvas = Canvas.of(canvas, (0, 0)).moved(steps[0], (0, 0)).image
        canvas = arrival.laid_under(canvas, frame, steps)
    x, y = places(np.linalg.inv(steps[0]), size)
    assert float((canvas - resampled(photo, x, y))[:, 8:-8, 8:-8].abs().mean()) < 0.02


def test_layers_walk_from_edges_to_objects_and_in_a_loop_back() -> None:
    there = walking(options(layers_walk=True)).schedules["layers"].text
    assert there.startswith("0%: block1,")
    assert there.endswith("100%: block13")
    back = walking(options(layers_walk=True, loop=True, model="vgg19")).schedules["layers"].text
    assert back.startswith("0%: relu1_2,")
    assert back.endswith("100%: relu1_2")
    assert "50%: relu5_2" in back


def test_of_layers_and_their_walk_the_one_typed_last_is_meant() -> None:
    below = read_preset("loom", ZoomOptions)
    walks = walking(made(ZoomOptions, below, {"layers_walk": True}))
    assert "block13" in walks.schedules["layers"].text
    walked = recorded(made(ZoomOptions, {"layers_walk": True}).as_comment(), "here", ZoomOptions)
    assert made(ZoomOptions, walked, {"model": "vgg19"}).layers_walk
    assert made(ZoomOptions, walked, {"layers": "block3"}).layers == ("block3",)
    with pytest.raises(OptionError, match="exclude"):
        made(ZoomOptions, {"layers": "block3", "layers_walk": True})


def test_a_movie_of_hours_begins_at_once() -> None:
    given = options(duration="9999:00:00", zoom="1.2 + 0.1*sin(t)", frames=2)
    began = time.process_time()
    plan = planned(begun("noise", given), given)
    assert (plan.count, len(plan.steps)) == (2, 9999 * 3600 * 12 + 1)
    assert growth(plan.steps[1]) > 1
    assert time.process_time() - began < 2
    with pytest.raises(IndexError):
        plan.steps[len(plan.steps)]


@pytest.mark.parametrize("scale", [1.0001, 1.4, 4])
def test_octaves_stay_few(scale: float) -> None:
    given = ZoomOptions(octave_scale=scale)
    assert 1 <= given.octaves_at((96, 128)) <= given.octaves_at((2160, 3840)) <= 16
    assert ZoomOptions().octaves_at((270, 480)) == 4
    assert ZoomOptions().octaves_at((540, 960)) == 6


@pytest.mark.parametrize("name", preset_names(ZoomOptions))
def test_presets_are_options_that_differ(name: str) -> None:
    found = made(ZoomOptions, read_preset(name, ZoomOptions))
    others = [read_preset(n, ZoomOptions) for n in preset_names(ZoomOptions) if n != name]
    assert found.as_comment() not in [made(ZoomOptions, other).as_comment() for other in others]


def test_both_models_fall(vgg19: Backbone, lite0: Backbone) -> None:
    for network, model in ((lite0, "efficientnet-lite0"), (vgg19, "vgg19")):
        given = options(duration="0.5", rate="6", model=model, size="96x64", zoom=2)
        _, frames = film_of(network, "noise", given)
        assert len(frames) == 3
        assert len({frame.pixels.tobytes() for frame in frames}) == 3


# Files


def test_a_file_has_the_frames_times_and_settings_that_were_asked_for(
    coffee: Path, tmp_path: Path
) -> None:
    given = options(duration="1", rate="30000/1001", size="96x128")
    paths = [tmp_path / name for name in ("a.mp4", "b.mp4", "c.mp4")]
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        outcome = zoom_file(str(coffee), path, given.model_copy(update={"seed": seed}))
        assert (outcome.frames, outcome.complete) == (30, True)
    assert frame_times(paths[0]) == [i * Fraction(1001, 30000) for i in range(30)]
    first, again, other = (pictures(path) for path in paths)
    assert first[0].shape == (128, 96, 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[-1], other[-1])
    before = np.asarray(Pillow.open(coffee))[:, 75:225]
    before = cv2.resize(before, (96, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(first[0].astype(int) - before).mean() < 4  # it begins with the picture itself


def test_frames_show_how_the_same_movie_begins(tmp_path: Path) -> None:
    whole, part = options(duration="2"), options(duration="2", frames=5)
    zoom_file("pink", tmp_path / "whole.mkv", whole.model_copy(update={"codec": "ffv1"}))
    zoom_file("pink", tmp_path / "part.mkv", part.model_copy(update={"codec": "ffv1"}))
    found = zip(pictures(tmp_path / "whole.mkv"), pictures(tmp_path / "part.mkv"), strict=False)
    assert [np.array_equal(a, b) for a, b in found] == [True] * 5


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_it_fits_into_what_is_asked(ending: str, tmp_path: Path) -> None:
    target = tmp_path / f"loop.{ending}"
    given = options(duration="1", loop=True, lead_in="0.5", max_size="60kB")
    zoom_file("noise", target, given)
    assert 5_000 < target.stat().st_size <= 60_000
    with Pillow.open(target) as moving:
        assert moving.info["loop"] == 0
        assert getattr(moving, "n_frames", 1) > 4


def test_the_song_is_in_the_movie_and_moves_it(
    tmp_path: Path, lite0: Backbone, write_song: Callable[[Path], Path]
) -> None:
    song = write_song(tmp_path / "song.wav")
    given = options(audio=song, react="zoom: bass 1..3", strength=0)
    target = tmp_path / "out.mp4"
    zoom_file("noise", target, given)
    with av.open(str(target)) as found:
        sound = found.streams.audio[0]
        assert sound.duration is not None
        assert float(sound.duration * (sound.time_base or 0)) > 1.8
        assert found.streams.video[0].frames == 24  # as long as the song
    frames = [picture.astype(int) for picture in pictures(target)]
    moves = [float(np.abs(b - a).mean()) for a, b in pairwise(frames)]
    assert max(moves[:8]) < 0.2 * max(moves[12:18])  # a second of silence, then the drum


@pytest.fixture
def write_song() -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        times = np.arange(2 * 44100) / 44100
        samples = np.sin(2 * np.pi * 60 * times) * (times > 1) * 0.8
        with av.open(str(path), "w") as out:
            stream = out.add_stream("pcm_s16le", rate=44100, layout="mono")
            frame = av.AudioFrame.from_ndarray(
                (samples * 32767).astype(np.int16)[None], format="s16", layout="mono"
            )
            frame.rate = 44100
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                out.mux(packet)
        return path

    return write


@pytest.mark.parametrize(
    ("source", "given", "told"),
    [
        ("nowhere.jpg", {}, "no such file"),
        ("nois", {}, "did you mean noise"),
        ("noise", {"through": "nowhere.jpg"}, "no such file"),
        ("noise", {"duration": "0.01"}, "too short"),
        ("noise", {"duration": "0.1", "loop": True}, "too short"),
        ("noise", {"react": "zoom: bass"}, "no sound to follow"),
        ("clouds", {}, "salt-and-pepper"),
        ("noise", {"through": "cat.jpg,cat.jpg", "duration": "0.2"}, "need more than 2 frames"),
        ("noise", {"audio": "nowhere.mp3"}, "no such file"),
        (
            "noise",
            {"zoom": "0: 1, 50: 2", "duration": "0.5", "react": "warm-steps: bass"},
            "follow",
        ),
        ("noise", {"zoom": "0: 1, 11s: 2, 50%: 1"}, "after"),
        ("noise", {"layers_walk": True, "layers": "block3"}, "exclude"),
        ("noise", {"memory": 2}, "memory"),
        ("noise", {"device": "mps"}, "no such device"),
    ],
)
def test_what_cannot_be_is_one_line_before_anything_is_loaded(
    source: str,
    given: dict[str, object],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Pillow.new("RGB", (64, 64)).save("cat.jpg")
    monkeypatch.setattr("streamdream.backbone.load", lambda *_: pytest.fail("loaded"))
    with pytest.raises(Error, match=told) as fault:
        zoom_file(source, tmp_path / "out.mp4", options(**given))
    assert "\n" not in str(fault.value)
    assert [path.name for path in tmp_path.iterdir()] == ["cat.jpg"]


def test_a_text_is_no_picture(tmp_path: Path) -> None:
    words = tmp_path / "words.png"
    words.write_text("not a picture")
    with pytest.raises(SourceError):
        zoom_file(str(words), tmp_path / "out.mp4")
    with pytest.raises(SourceError):
        zoom_file("noise", tmp_path / "out.mp4", options(through=str(words)))


def test_a_picture_is_not_overwritten_by_its_movie(coffee: Path) -> None:
    before = coffee.read_bytes()
    with pytest.raises(Error, match="is the input itself"):
        zoom_file(str(coffee), coffee, options(overwrite=True))
    with pytest.raises(Error, match="is the input itself"):
        zoom_file("noise", coffee, options(overwrite=True, through=str(coffee)))
    assert coffee.read_bytes() == before


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamdream", "zoom", *map(str, arguments)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def test_the_command_makes_a_movie_and_like_repeats_it(tmp_path: Path) -> None:
    first, again = tmp_path / "a.mp4", tmp_path / "b.mp4"
    short = ["--duration", "0.5", "--size", "96x64"]
    done = run(
        "noise", "-o", first, *short, "--preset", "breath", "--layers", "0: block3, 100%: block5"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert run("noise", "-o", again, *short, "--like", first).returncode == 0
    assert all(map(np.array_equal, pictures(first), pictures(again)))
    with pytest.raises(OptionError, match="was made by streamdream zoom"):
        recorded(read_settings(first), "--like a.mp4")


@pytest.mark.skipif(sys.platform == "win32", reason="Ctrl-C is a signal")
def test_an_interrupted_movie_can_be_played(tmp_path: Path) -> None:
    target, part = tmp_path / "long.mp4", tmp_path / "long.part.mp4"
    process = subprocess.Popen(
        [sys.executable, "-m", "streamdream", "zoom", "noise", "-o", target, "--size", "96x64"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until = time.monotonic() + 60
    while time.monotonic() < until and not (part.exists() and part.stat().st_size > 0):
        time.sleep(0.1)
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "can be played" in told
    assert not target.exists()
    assert len(pictures(part)) >= 1
