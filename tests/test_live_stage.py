from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from streamdream.effects import effects_of
from streamdream.frame import Bytes, Image, Pixels, Resized, planes
from streamdream.governor import Scalar
from streamdream.live.controls import Controls
from streamdream.live.dreamer import Dreamer, Job
from streamdream.live.flashes import FlashLimiter
from streamdream.live.layers import laid_on
from streamdream.live.options import LiveOptions
from streamdream.live.outputs import Shown
from streamdream.live.pacing import LOWEST, Latencies, Pacing, Rate
from streamdream.live.presence import Attraction, Gate, Presence
from streamdream.live.stage import Stage
from streamdream.live.trail import Trail
from streamdream.motion import Movement, OpticalFlow
from streamdream.options import Look
from streamdream.pipeline import Carried, Effect, Picture

H, W = 96, 160
PHOTO = cv2.resize(data.coffee(), (480, 320), interpolation=cv2.INTER_AREA)


def window(x: int, y: int = 100) -> Bytes:
    """A view of the photograph; its things are at -x."""
    return np.ascontiguousarray(PHOTO[y : y + H, x : x + W])


class Painter:
    """An effect that turns one thing red, wherever it is, and takes its time."""

    replaces = False

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.where = np.zeros((H, W), np.float32)
        self.calls: list[Carried] = []

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        self.calls.append(carried)
        mark = torch.from_numpy(self.where)[None] * torch.tensor([1.0, -1.0, -1.0])[:, None, None]
        yield (image + carried.delta).clone
        time.sleep(self.seconds)
        yield partial(torch.clone, image + 0.4 * mark)

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> Scalar:
        return torch.tensor(1.0)

    def takes_part(self, options: Look) -> bool:
        return True

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        raise AssertionError("live runs lay layers on")


def staged(
    effect: Effect, options: LiveOptions | None = None, told: list[str] | None = None
) -> tuple[Stage, Dreamer, Controls]:
    options = options or LiveOptions(work_size=H, flow="dis", steps=1)
    tell = (told if told is not None else []).append

    def load(options: Look, device: torch.device) -> tuple[Effect, ...]:
        return effects_of(options, device) if options.precision == "fp32" else (effect,)

    dreamer = Dreamer(options, torch.device("cpu"), tell, load)
    controls = Controls(options)
    return Stage(controls, dreamer, Pacing(1 / 30)), dreamer, controls


def seen(shown: Shown | None) -> Shown:
    assert shown is not None
    return shown


def settled(dreamer: Dreamer) -> None:
    until = time.monotonic() + 10
    while not dreamer.idle and time.monotonic() < until:
        time.sleep(0.005)
    assert dreamer.idle


def redness(shown: Bytes, source: Bytes) -> np.ndarray:
    change = shown.astype(np.float32) - source
    return (change[..., 0] - change[..., 1]).clip(0)


def centre(weights: np.ndarray) -> tuple[float, float]:
    ys, xs = np.mgrid[: weights.shape[0], : weights.shape[1]]
    total = weights.sum()
    return float((xs * weights).sum() / total), float((ys * weights).sum() / total)


@pytest.mark.alone
def test_a_dream_that_comes_late_lies_where_its_thing_is_by_then() -> None:
    painter = Painter(seconds=0.4)
    cv2.circle(painter.where, (100, 48), 12, (1.0,), -1)
    stage, dreamer, _ = staged(painter)
    now = time.monotonic()
    stage.show(window(100), now)
    time.sleep(0.05)
    for i in range(1, 9):  # the thing moves 3 px to the left in every picture
        stage.show(window(100 + 3 * i), now + i / 30)
    shown = seen(stage.show(window(127), now + 9 / 30))
    assert redness(shown.pixels, window(127)).max() < 40  # it is still being dreamed
    settled(dreamer)
    stage.show(window(130), now + 11 / 30)
    painter.where[:] = 0
    last = stage.show(window(133), now + 2)
    assert last is not None
    red = redness(last.pixels, window(133))
    assert red.max() > 80
    x, y = centre(np.where(red > 40, red, 0))
    assert abs(x - (100 - 33)) < 2
    assert abs(y - 48) < 2
    dreamer.close()


@pytest.mark.alone
def test_showing_never_waits_for_dreaming() -> None:
    stage, dreamer, _ = staged(Painter(seconds=0.5))
    stage.show(window(100))
    took = []
    for i in range(20):
        began = time.perf_counter()
        stage.show(window(100 + i))
        took.append(time.perf_counter() - began)
    assert not dreamer.idle
    assert np.median(took) < 0.1
    dreamer.close()


def test_a_new_dream_is_blended_in_and_does_not_jump() -> None:
    painter = Painter()
    painter.where[:] = 0.5
    stage, dreamer, _ = staged(painter)
    now = time.monotonic()
    levels = []
    for i in range(30):
        shown = stage.show(window(100), now + i / 30)
        settled(dreamer)
        assert shown is not None
        levels.append(redness(shown.pixels, window(100)).mean())
    steps = np.diff(levels)
    assert max(levels) > 60
    assert steps.max() < 0.6 * max(levels)
    assert levels[-1] > 0.9 * max(levels)
    dreamer.close()


@pytest.mark.alone
def test_a_cut_drops_the_dream_even_the_one_that_is_on_its_way() -> None:
    painter = Painter(seconds=0.3)
    painter.where[:] = 1
    stage, dreamer, _ = staged(painter)
    now = time.monotonic()
    stage.show(window(100), now)
    time.sleep(0.05)
    other = np.ascontiguousarray(255 - data.chelsea()[:H, :W])
    stage.show(other, now + 1 / 30)
    settled(dreamer)
    painter.where[:] = 0
    shown = stage.show(other, now + 1)
    assert shown is not None
    assert redness(shown.pixels, other).max() < 5
    dreamer.close()


def test_times_increase_and_a_picture_without_a_camera_goes_on() -> None:
    stage, dreamer, _ = staged(Painter())
    assert stage.show(None) is None
    shown = [stage.show(window(50)), stage.show(None), stage.show(None)]
    times = [s.time for s in shown if s is not None]
    assert times == sorted(set(times))
    assert len(times) == 3
    first = shown[0]
    assert first is not None
    frozen = seen(stage.again())
    assert frozen.time > times[-1]
    assert np.array_equal(frozen.pixels, seen(shown[-1]).pixels)
    dreamer.close()


def test_what_is_frozen_still_fades_to_black() -> None:
    stage, dreamer, _ = staged(Painter(), LiveOptions(work_size=H, fade=0.5))
    now = time.monotonic()
    assert stage.again(now) is None
    stage.show(window(100), now)
    stage.black = True
    levels = [float(seen(stage.again(now + i / 30)).pixels.mean()) for i in range(30)]
    assert levels[-1] == 0
    assert 0 < levels[8] < levels[1]
    stage.black = False
    assert seen(stage.again(now + 3)).pixels.mean() > 50
    dreamer.close()


def test_nothing_is_dreamed_behind_black() -> None:
    painter = Painter()
    stage, dreamer, _ = staged(painter, LiveOptions(work_size=H, fade=0.1))
    stage.black = True
    now = time.monotonic()
    for i in range(10):
        stage.show(window(100), now + i / 5)
        settled(dreamer)
    done = len(painter.calls)
    for i in range(10):
        stage.show(window(100), now + 2 + i / 5)
    settled(dreamer)
    assert len(painter.calls) == done
    dreamer.close()


def test_memory_that_was_short_is_forgiven_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    import streamdream.live.dreamer as dreaming

    monkeypatch.setattr(dreaming, "FORGIVES", 0.05)
    failing = Failing(torch.OutOfMemoryError("out"))
    stage, dreamer, _ = staged(failing)
    until = time.monotonic() + 5
    while time.monotonic() < until and dreamer.faults < 1:
        stage.show(window(100))
        time.sleep(0.02)
    assert dreamer.ceiling < 1
    failing.fault, failing.good = None, True
    while time.monotonic() < until + 5 and dreamer.ceiling < 1:
        stage.show(window(100))
        time.sleep(0.02)
    assert dreamer.ceiling == 1
    dreamer.close()


def test_a_dream_goes_on_where_the_process_is_already_nice() -> None:
    code = """
import os, torch
from streamdream.live.dreamer import _leave_room
os.nice(12)
if os.getuid() == 0:
    os.setuid(65534)  # root may do what others may not
_leave_room(torch.device("cpu"))
print("goes on")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert "goes on" in done.stdout, done.stderr


def test_the_work_size_may_change_at_any_time() -> None:
    painter = Painter()
    options = LiveOptions(work_size=H, flow="dis", steps=1, ramp=0)
    stage, dreamer, controls = staged(painter, options)
    now = time.monotonic()
    for i, lines in enumerate((96, 64, 80, 48, 96)):
        controls.set("work-size", lines)
        painter.where = np.ones((lines, round(W * lines / H)), np.float32)
        for k in range(4):
            stage.show(window(100), now + i + k / 30)
            settled(dreamer)
        shown = seen(stage.show(window(100), now + i + 5 / 30))
        settled(dreamer)
        assert shown.pixels.shape == (H, W, 3)
        assert stage.lines == lines
        assert redness(shown.pixels, window(100)).mean() > 30
    assert dreamer.faults == 0
    dreamer.close()


def test_a_scene_grows_over_several_jobs_and_is_carried_on_then() -> None:
    painter = Painter()
    stage, dreamer, _ = staged(painter, LiveOptions(work_size=H, flow="dis", steps=3))
    for _ in range(8):
        stage.show(window(100))
        settled(dreamer)
    governors = [call.governor is None for call in painter.calls]
    assert governors[:3] == [True, True, True]
    assert not any(governors[3:])
    dreamer.close()


def test_another_look_grows_while_the_old_one_fades() -> None:
    painter = Painter()
    painter.where[:] = 1
    stage, dreamer, controls = staged(painter, LiveOptions(work_size=H, flow="dis", steps=4))
    for _ in range(8):
        stage.show(window(100))
        settled(dreamer)
    controls.set("layers", "block3")
    painter.calls.clear()
    strengths = []
    for _ in range(4):
        stage.show(window(100))
        settled(dreamer)
        strengths.append(float(painter.calls[-1].delta.abs().mean()))
    assert all(call.governor is None for call in painter.calls[:4])
    assert strengths[0] > 0
    dreamer.close()


class Failing:
    """An effect that fails in a given way until it is told not to."""

    replaces = False

    def __init__(self, fault: Exception | None) -> None:
        self.fault, self.good = fault, False
        self.sizes: list[tuple[int, ...]] = []

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        self.sizes.append(tuple(image.shape[-2:]))
        if self.fault is not None:
            raise self.fault
        yield partial(torch.clone, image if self.good else image * float("nan"))

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> Scalar:
        return torch.tensor(1.0)

    def takes_part(self, options: Look) -> bool:
        return True

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        raise AssertionError("live runs lay layers on")


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "not enough memory"),
        (RuntimeError("shapes do not match"), "shapes do not match"),
        (None, "no numbers"),
    ],
)
def test_a_dream_that_fails_is_told_and_the_picture_goes_on(
    fault: Exception | None, told: str
) -> None:
    said: list[str] = []
    failing = Failing(fault)
    stage, dreamer, _ = staged(failing, told=said)
    until = time.monotonic() + 5
    while time.monotonic() < until and dreamer.faults < 1:
        assert stage.show(window(100)) is not None
        time.sleep(0.02)
    assert dreamer.faults >= 1
    assert any(told in text for text in said)
    if "memory" in told:
        assert dreamer.ceiling < 1
        for _ in range(40):
            stage.show(window(100))
            time.sleep(0.02)
        assert failing.sizes[-1] < failing.sizes[0]
    began = time.monotonic()
    dreamer.close()
    assert time.monotonic() - began < 3
    assert not dreamer._thread.is_alive()


def test_after_no_numbers_the_dream_begins_anew_in_full_precision() -> None:
    said: list[str] = []
    stage, dreamer, _ = staged(Failing(None), LiveOptions(work_size=64, steps=1), said)
    until = time.monotonic() + 20
    while time.monotonic() < until and dreamer.dreams < 2:
        stage.show(window(100))
        time.sleep(0.05)
    assert dreamer.dreams >= 2  # the failing effect was thrown out with its network
    dreamer.close()


def test_the_real_dream_appears_and_changes_only_by_its_strength(photo: Image) -> None:
    options = LiveOptions(work_size=64, steps=2, octaves=2)
    dreamer = Dreamer(options, torch.device("cpu"), print)
    controls = Controls(options)
    stage = Stage(controls, dreamer, Pacing(1 / 30))
    until = time.monotonic() + 20
    while time.monotonic() < until and dreamer.dreams < 3:
        stage.show(window(100))
        time.sleep(0.02)
    assert dreamer.dreams >= 3
    shown = stage.show(window(100), time.monotonic() + 1)
    assert shown is not None
    assert np.abs(shown.pixels.astype(int) - window(100)).mean() > 2
    controls.set("strength", 0.0, seconds=0)
    plain = stage.show(window(100), time.monotonic() + 1)
    assert plain is not None
    assert np.array_equal(plain.pixels, window(100))
    controls.set("view", "source")
    controls.set("strength", 1.0, seconds=0)
    source = stage.show(window(100), time.monotonic() + 2)
    assert source is not None
    assert np.array_equal(source.pixels, window(100))
    dreamer.close()


def test_a_job_over_a_long_way_finds_its_movement_from_where_it_is_told_to_look() -> None:
    # 10 frames of 6 px: too far for a search from nothing at this size, not from the trail.
    flow = OpticalFlow("dis")
    before, now = (planes(window(x).astype(np.float32) / 255) for x in (100, 160))
    start = torch.zeros(2, H, W)
    start[0] = 58.0
    found = flow.between(now, before, start)
    inner = found.flow[0, 20:-20, 10:80]
    assert abs(float(inner.median()) - 60) < 1
    assert float(found.trust[0, 20:-20, 10:80].mean()) > 0.7


def test_trails_add_movements_up_and_resample_once() -> None:
    trail = Trail((H, W))
    step = torch.zeros(2, H, W)
    step[0], step[1] = 1.5, -0.5
    for _ in range(8):
        trail.follow(Movement(step, torch.ones(1, H, W)))
    texture = np.asarray(np.random.default_rng(0).uniform(-0.3, 0.3, (H, W, 3)), np.float32)
    carried = trail.carried(texture)
    assert np.allclose(trail.flow[30:60, 30:90], [12, -4], atol=1e-3)
    assert np.allclose(carried[20:70, 20:120], texture[16:66, 32:132], atol=1e-2)
    half = trail.resized((H // 2, W // 2))
    assert np.allclose(half.flow[15:30, 15:45], [6, -2], atol=1e-3)
    trail.follow(Movement(step, torch.ones(1, H, W), cut=True))
    assert np.all(trail.carried(texture) == 0)


def test_laid_on_is_composite_within_a_level() -> None:
    from streamdream.frame import composite

    rng = np.random.default_rng(1)
    delta = cv2.GaussianBlur(rng.uniform(-0.5, 0.5, (48, 80, 3)).astype(np.float32), (0, 0), 1)
    quick = laid_on(window(100), np.asarray(delta, np.float32), 0.8)
    exact = composite(window(100), planes(np.asarray(delta, np.float32)), 0.8)
    assert np.abs(quick.astype(int) - exact).max() <= 2
    assert np.abs(quick.astype(int) - exact).mean() < 0.5


# What follows is about time: what keeps pace, what flashes, who moves.


def simulated(pacing: Pacing, cost: float, seconds: float, begin: float = 0.0) -> list[float]:
    """Shares over a run on a machine that takes `cost` seconds at full share."""
    shares = []
    for i in range(int(seconds * 30)):
        # A third of the work does not depend on the size.
        busy = cost * (0.33 + 0.67 * pacing.share**2)
        pacing.showed(busy, now=begin + i / 30)
        shares.append(pacing.share)
    return shares


def test_quality_falls_until_pictures_come_in_time_and_stays_there() -> None:
    pacing = Pacing(1 / 30)
    shares = simulated(pacing, 0.045, 120)
    assert LOWEST < pacing.share < 1
    changes = np.count_nonzero(np.diff(shares[30 * 30 :]))
    assert changes <= 6  # no going to and fro
    assert pacing.load < 1


def test_quality_comes_back_when_there_is_room_again() -> None:
    pacing = Pacing(1 / 30)
    simulated(pacing, 0.06, 30)
    assert pacing.share < 0.9
    simulated(pacing, 0.008, 60, begin=30)
    assert pacing.share == 1


def test_quality_has_a_lowest_and_lines_keep_to_it() -> None:
    pacing = Pacing(1 / 30)
    simulated(pacing, 1.0, 60)
    assert pacing.share == LOWEST
    assert pacing.lines(180) == 90
    assert pacing.lines(180, ceiling=0.25) == 45
    assert pacing.lines(32) == 32


def test_one_slow_picture_changes_nothing() -> None:
    pacing = Pacing(1 / 30)
    for i in range(300):
        pacing.showed(0.2 if i % 60 == 0 else 0.012, now=i / 30)
    assert pacing.share == 1


def test_steps_shrink_only_where_a_dream_takes_too_long() -> None:
    pacing = Pacing(1 / 30)
    assert pacing.steps(4, each=0.2) == 4
    assert pacing.steps(4, each=1.2) == 2
    assert pacing.steps(4, each=60) == 1
    assert pacing.steps(0, each=60) == 0


def test_rates_and_latencies_tell_what_happened_lately() -> None:
    rate = Rate(2.0)
    for i in range(60):
        rate.count(i * 5, i / 10)
    assert rate.now == pytest.approx(50)
    latencies = Latencies()
    assert latencies.milliseconds == (0, 0)
    for i in range(100):
        latencies.add(0.010 if i < 90 else 0.2)
    p50, p95 = latencies.milliseconds
    assert p50 == pytest.approx(10)
    assert p95 == pytest.approx(200)


def flashes(light: np.ndarray, rate: float) -> float:
    """The most general flashes in any second, counted as WCAG says, of a row of luminances."""
    turns: list[int] = []
    extreme, direction = light[0], 0
    for i, value in enumerate(light):
        change = value - extreme
        if abs(change) >= 0.1 and min(value, extreme) < 0.8 and np.sign(change) != direction:
            turns.append(i)
            direction, extreme = int(np.sign(change)), value
        elif np.sign(change) == direction:
            extreme = value
    return max((sum(i <= t < i + rate for t in turns) / 2 for i in turns), default=0.0)


def luminance(shown: list[Bytes]) -> np.ndarray:
    linear = [((p.astype(np.float32) / 255) ** 2.2).mean() for p in shown]
    return np.array(linear)


@pytest.mark.parametrize("hertz", [4.0, 7.5, 10.0, 15.0])
@pytest.mark.parametrize("rate", [30.0, 60.0])
def test_what_flashes_is_damped_to_three_a_second(hertz: float, rate: float) -> None:
    limiter = FlashLimiter()
    source, shown = [], []
    for i in range(int(6 * rate)):
        on = (i / rate * hertz) % 1 < 0.5
        source.append(np.full((90, 160, 3), 240 if on else 10, np.uint8))
        shown.append(limiter(source[-1], i / rate))
    assert flashes(luminance(source), rate) > 3
    assert flashes(luminance(shown), rate) <= 3
    assert limiter.damping


def test_a_quarter_of_the_picture_is_enough_and_a_tenth_is_not() -> None:
    for share, damped in ((0.5, True), (0.1, False)):
        limiter = FlashLimiter()
        for i in range(90):
            pixels = np.full((90, 160, 3), 90, np.uint8)
            pixels[:, : round(160 * share)] = 240 if i % 4 < 2 else 10
            limiter(pixels, i / 30)
        assert limiter.damping == damped


def test_what_does_not_flash_is_left_alone() -> None:
    limiter = FlashLimiter()
    for i in range(120):
        pixels = window(100 + i)  # a pan
        assert limiter(pixels, i / 30) is pixels
    for i in range(60):  # one fade up and down, and a blink of a second
        pixels = np.full((90, 160, 3), 40 + 3 * i if i < 30 else 20, np.uint8)
        assert limiter(pixels, 4 + i / 30) is pixels
    assert not limiter.damping


def test_after_the_flashes_the_picture_comes_back() -> None:
    limiter = FlashLimiter()
    for i in range(90):
        limiter(np.full((90, 160, 3), 240 if i % 3 else 10, np.uint8), i / 30)
    assert limiter.damping
    calm = np.full((90, 160, 3), 120, np.uint8)
    shown = [limiter(calm, 3 + i / 30) for i in range(150)][-1]
    assert not limiter.damping
    assert shown is calm


def somebody(i: int) -> Bytes:
    pixels = window(100).copy()
    x = 20 + (i * 6) % 100
    pixels[20:80, x : x + 30] = (200, 30, 30)
    return pixels


def test_movement_is_seen_and_light_and_noise_are_not() -> None:
    rng = np.random.default_rng(2)
    presence = Presence()
    for i in range(60):
        noisy = np.clip(window(100) + rng.normal(0, 6, (H, W, 3)), 0, 255).astype(np.uint8)
        presence.look(noisy, i / 30, 0.5)
    assert presence.movement < 0.05
    assert presence.still_for > 1.5
    for i in range(30):  # a lamp is switched on slowly
        lit = np.clip(window(100).astype(int) + i, 0, 255).astype(np.uint8)
        presence.look(lit, 2 + i / 30, 0.3)
    assert presence.movement < 0.2
    for i in range(30):
        presence.look(somebody(i), 3 + i / 30, 0.5)
    assert presence.movement > 0.3
    assert presence.still_for == 0


@pytest.mark.parametrize(("mode", "moving", "goal"), [
    ("still", False, 1.0), ("still", True, 0.0), ("motion", True, 1.0), ("motion", False, 0.0),
    ("off", True, 1.0), ("off", False, 1.0),
])  # fmt: skip
def test_the_gate_goes_where_its_mode_says_smoothly(mode: str, moving: bool, goal: float) -> None:
    gate = Gate()
    gate.open = 0.5
    levels = [gate(mode, moving, i / 30) for i in range(150)]
    assert levels[-1] == goal
    assert np.abs(np.diff(levels)).max() < 0.12


def test_with_the_gate_closed_the_world_is_back_and_nothing_is_dreamed() -> None:
    painter = Painter()
    painter.where[:] = 1
    options = LiveOptions(work_size=H, flow="dis", steps=1, gate="still")
    stage, dreamer, _ = staged(painter, options)
    now = time.monotonic()
    for i in range(39):
        stage.show(somebody(i), now + i / 30)
        settled(dreamer)
    shown = seen(stage.show(somebody(39), now + 39 / 30))
    assert stage.let_through == 0
    assert np.array_equal(shown.pixels, somebody(39))
    done = len(painter.calls)
    stage.show(somebody(40), now + 41 / 30)
    settled(dreamer)
    assert len(painter.calls) == done
    for i in range(200):
        stage.show(window(100), now + 2 + i / 30)
        settled(dreamer)
    shown = seen(stage.show(window(100), now + 9))
    assert stage.let_through == 1
    assert redness(shown.pixels, window(100)).mean() > 20
    dreamer.close()


def test_nobody_there_brings_the_last_visitor_back_until_one_comes() -> None:
    attraction = Attraction(5)
    for i in range(120):
        attraction(somebody(i), 0.0, i / 30)
    seen = []
    for i in range(90):
        shown = attraction(window(100), 6.0 + i / 30, 10 + i / 30)
        seen.append(np.abs(shown.astype(int) - window(100)).mean())
    assert attraction.playing
    assert np.mean(seen) > 3
    assert attraction(window(100), 0.0, 14) is not None
    assert not attraction.playing


def test_blackout_fades_and_comes_back() -> None:
    options = LiveOptions(work_size=H, fade=1.0, strength=0.0)
    stage, dreamer, _ = staged(Painter(), options)
    now = time.monotonic()
    means = []
    for i in range(90):
        stage.black = 10 <= i < 50
        shown = stage.show(window(100), now + i / 30)
        assert shown is not None
        means.append(float(shown.pixels.mean()))
    assert min(means) == 0
    assert means[-1] == pytest.approx(means[0], rel=0.02)
    assert np.abs(np.diff(means)).max() < 0.1 * means[0]
    dreamer.close()


def test_a_job_is_refused_while_another_is_dreamed() -> None:
    stage, dreamer, controls = staged(Painter(seconds=0.3))
    stage.show(window(100))
    job = Job(planes(window(100).astype(np.float32) / 255), stage._last, 99, controls.at())
    assert not dreamer.offer(job)
    dreamer.close()


def test_a_look_that_follows_a_signal_is_grown_all_the_same() -> None:
    painter = Painter()
    reacts = ("step-size: onset 0.5..3", "octaves: onset 1..4")
    options = LiveOptions(work_size=H, flow="dis", steps=2, react=reacts)
    stage, dreamer, controls = staged(painter, options)
    loud = iter(range(1000))
    controls._signals = lambda: {"onset": (next(loud) % 7) / 6}
    for _ in range(8):
        stage.show(window(100))
        settled(dreamer)
    assert [call.governor is None for call in painter.calls[:2]] == [True, True]
    assert not any(call.governor is None for call in painter.calls[2:])
    dreamer.close()


def test_a_look_that_moves_is_grown_all_the_same_and_another_one_anew() -> None:
    painter = Painter()
    options = LiveOptions.model_validate(
        {
            "work_size": H, "flow": "dis", "steps": 2, "step_size": "1 + 0.5*sin(20*t)",
            "layers": "0: block5, 60s: block9", "octaves": "0: 1, 3: 4, 6: 1, 9: 4",
        }
    )  # fmt: skip
    stage, dreamer, controls = staged(painter, options)
    for _ in range(8):
        stage.show(window(100))
        settled(dreamer)
    assert [call.governor is None for call in painter.calls[:2]] == [True, True]
    assert not any(call.governor is None for call in painter.calls[2:])
    count = len(painter.calls)
    controls.set("layers", "block9")
    for _ in range(2):
        stage.show(window(100))
        settled(dreamer)
    assert painter.calls[count].governor is None
    dreamer.close()
