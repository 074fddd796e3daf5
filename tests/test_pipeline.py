from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import make_clip
import numpy as np
import pytest
import torch
from media import frame_times

from streamdream.backbone import Backbone
from streamdream.dream import Dream
from streamdream.errors import ModelError
from streamdream.frame import Frame, Image, Pixels, Resized, composite, to_image, work_size
from streamdream.governor import Governor, Scalar
from streamdream.motion import Movement, OpticalFlow
from streamdream.options import Look, Options
from streamdream.pipeline import Carried, Picture, State, carry, redraw
from streamdream.run import dream_file
from streamdream.views import arranged

QUICK = Options(layers=("block5",), octaves=2, work_size=96, steps=6)


def clip(indices: range, rate: int = 24) -> list[Frame]:
    return [Frame(make_clip.render(i), Fraction(n, rate), n) for n, i in enumerate(indices)]


def deltas(frames: list[Frame], results: list[Frame]) -> list[np.ndarray]:
    return [r.pixels.astype(np.float32) - f.pixels for f, r in zip(frames, results, strict=True)]


def alike(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


class Adding:
    """An effect whose doing is known: adds a constant to what was carried."""

    replaces = False

    def __init__(self, amount: float = 0.1) -> None:
        self.amount = amount
        self.seen: list[Carried] = []

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        self.seen.append(carried)
        yield (image + carried.delta + self.amount).clone

    def takes_part(self, options: Look) -> bool:
        return True

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(
        self, image: Image, result: Image, options: Look, carried: Carried
    ) -> Scalar | None:
        return (result - image).mean()

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        return composite(pixels, delta, options.strength)


def moved(dx: float, like: Image) -> Movement:
    flow = torch.zeros(2, *like.shape[1:])
    flow[0] = dx
    return Movement(flow, torch.ones(1, *like.shape[1:]))


def scene(image: Image, delta: Image, reference: float, added: float = 0.0) -> State:
    one = torch.tensor(1.0)
    governor = replace(
        Governor.begin(image, delta, one, one, Fraction(0)),
        reference=torch.tensor(reference),
        added=torch.tensor(added),
    )
    return State(Fraction(0), image, delta, torch.ones_like(image[:1]), governor)


class Moving:
    """A motion that is known exactly."""

    def __init__(self, dx: float, cut_at: int = -1) -> None:
        self.dx, self.calls, self.cut_at = dx, 0, cut_at

    def between(self, now: Image, before: Image) -> Movement:
        self.calls += 1
        return replace(moved(self.dx, now), cut=self.calls == self.cut_at)


def grey_frames(count: int, rate: Fraction = Fraction(25)) -> list[Frame]:
    grey = np.full((64, 96, 3), 40, np.uint8)
    return [Frame(grey, i / rate, i) for i in range(count)]


def test_a_carried_dream_fades_with_time_not_with_frames() -> None:
    image = torch.full((3, 32, 32), 0.4)
    state = scene(image, torch.full_like(image, 0.2), 0.2)
    for dt in (Fraction(1, 60), Fraction(1, 25), Fraction(1, 2)):
        carried = carry(state, image, dt, moved(0, image), memory=0.32)
        assert float(carried.delta.mean()) == pytest.approx(0.2 * math.exp(-float(dt) / 0.32))


def test_the_governor_holds_the_strength_of_the_scene() -> None:
    image = torch.full((3, 32, 32), 0.4)
    dt, still = Fraction(1, 25), moved(0, image)
    for strength in (0.4, 0.25):
        state = scene(image, torch.full_like(image, strength), reference=0.2, added=0.03)
        # What is kept and what the effect adds make up the strength at the start.
        assert float(carry(state, image, dt, still, 0.32).delta.mean()) == pytest.approx(0.17)
    weak = scene(image, torch.full_like(image, 0.05), reference=0.2, added=0.03)
    kept = float(carry(weak, image, dt, still, 0.32).delta.mean()) / 0.05
    assert kept == pytest.approx(math.exp(-1 / 25 / 0.32))


def test_a_scene_that_begins_in_the_dark_gets_its_strength_with_the_light(
    lite0: Backbone,
) -> None:
    lit = clip(range(16))
    dark = [
        Frame((f.pixels * min(1.0, f.index / 8)).astype(np.uint8), f.time, f.index) for f in lit
    ]

    def strength(frames: list[Frame]) -> float:
        results = list(redraw(frames, QUICK, Dream(lite0), OpticalFlow()))
        return float(np.sqrt((deltas(frames, results)[-1] ** 2).mean()))

    assert strength(dark) == pytest.approx(strength(lit), rel=0.15)


def test_nothing_crosses_a_cut() -> None:
    effect = Adding()
    list(redraw(grey_frames(4), QUICK, effect, Moving(0, cut_at=2)))
    assert [c.governor is None for c in effect.seen] == [True, False, True, False]
    assert float(effect.seen[2].delta.abs().max()) == 0
    assert float(effect.seen[1].delta.mean()) > 0.05


def test_memory_zero_dreams_every_frame_on_its_own() -> None:
    effect, motion = Adding(), Moving(0)
    list(redraw(grey_frames(3), QUICK.model_copy(update={"memory": 0.0}), effect, motion))
    assert all(c.governor is None for c in effect.seen)
    assert motion.calls == 0


def test_strength_is_shown_but_never_fed_back() -> None:
    weak, full = Adding(), Adding()
    frames = grey_frames(4)
    dim = list(redraw(frames, QUICK.model_copy(update={"strength": 0.5}), weak, Moving(0)))
    bright = list(redraw(frames, QUICK, full, Moving(0)))
    for a, b in zip(weak.seen, full.seen, strict=True):
        assert torch.equal(a.delta, b.delta)
    change = [(f.pixels.astype(int) - 40).mean() for f in (dim[-1], bright[-1])]
    assert change[0] == pytest.approx(change[1] / 2, abs=0.6)


def test_what_is_carried_moves_with_the_world() -> None:
    image = torch.full((3, 48, 64), 0.4)
    delta = torch.zeros_like(image)
    delta[:, 20:28, 30:38] = 0.2
    carried = carry(scene(image, delta, 1.0), image, Fraction(0), moved(-5.0, image), 0.32).delta
    centre = (carried.sum((0, 1)) * torch.arange(64)).sum() / carried.sum()
    assert float(centre) == pytest.approx(33.5 + 5, abs=0.05)


def test_a_size_change_in_mid_stream_starts_anew() -> None:
    effect, motion = Adding(), Moving(0)
    larger = [Frame(np.full((80, 96, 3), 40, np.uint8), Fraction(n, 25), n) for n in (2, 3)]
    list(redraw([*grey_frames(2), *larger], QUICK, effect, motion))
    assert [c.governor is None for c in effect.seen] == [True, False, True, False]
    assert motion.calls == 2


def test_another_work_size_carries_the_dream_on() -> None:
    effect, motion = Adding(0.02), Moving(0)
    options = QUICK.model_validate({**QUICK.given(), "work_size": "0: 64, 3: 32 hold"})
    results = list(redraw(grey_frames(6), options, effect, motion))
    assert [c.governor is None for c in effect.seen] == [True] + [False] * 5
    sizes = [tuple(c.delta.shape[-2:]) for c in effect.seen]
    assert sizes == [(64, 96)] * 3 + [(32, 48)] * 3
    carried = [float(c.delta.mean()) for c in effect.seen[1:]]
    assert carried[2] == pytest.approx(carried[1], rel=0.1)
    assert all(r.pixels.shape == (64, 96, 3) for r in results)


def test_times_and_numbers_pass_through(lite0: Backbone) -> None:
    frames = [Frame(f.pixels, f.time + Fraction(7, 3), f.index + 5) for f in clip(range(3))]
    results = list(redraw(frames, QUICK, Dream(lite0), OpticalFlow()))
    assert [(r.time, r.index) for r in results] == [(f.time, f.index) for f in frames]
    assert all(r.pixels.shape == f.pixels.shape for r, f in zip(results, frames, strict=True))


def test_watching_shows_every_step(lite0: Backbone) -> None:
    seen: list[tuple[int, torch.Size]] = []
    options = QUICK.model_copy(update={"steps": 2, "warm_steps": 1})

    def watch(frame: Frame, picture: Picture) -> None:
        seen.append((frame.index, picture().shape))

    list(redraw(clip(range(2)), options, Dream(lite0), OpticalFlow(), watch=watch))
    assert [i for i, _ in seen] == [0] * 4 + [1] * 2
    assert {shape for _, shape in seen} == {torch.Size((3, *work_size(make_clip.SIZE, 96)))}


def test_the_dream_sticks_to_the_world_and_flickers_without_memory(lite0: Backbone) -> None:
    """Judged with the true flow of the sample clip, not with an estimate."""
    frames = clip(range(10, 20))
    options = Options(work_size=180, octaves=3)

    def incoherence(options: Options) -> float:
        results = list(redraw(frames, options, Dream(lite0), OpticalFlow()))
        found = []
        changes = deltas(frames, results)
        for n in range(3, len(frames)):
            flow, seen = make_clip.flow(10 + n), make_clip.visible(10 + n)
            was = warped(changes[n - 1], flow)[seen]
            now = changes[n][seen]
            found.append(((now - was) ** 2).sum() / ((now**2).sum() + (was**2).sum()))
        return float(np.mean(found))

    carried = incoherence(options)
    independent = incoherence(options.model_copy(update={"memory": 0.0}))
    assert carried < 0.1
    assert independent > 0.4


def warped(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    import cv2

    h, w = flow.shape[1:]
    x, y = np.meshgrid(np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32))
    return cv2.remap(image, x + flow[0], y + flow[1], cv2.INTER_CUBIC)


def test_after_a_cut_the_old_dream_is_gone(lite0: Backbone) -> None:
    frames = clip(range(36, 44))
    results = list(redraw(frames, QUICK, Dream(lite0), OpticalFlow()))
    changes = deltas(frames, results)
    assert alike(changes[3], changes[2]) > 0.8
    assert abs(alike(changes[4], changes[3])) < 0.1
    strength = [float(np.sqrt((c**2).mean())) for c in changes]
    assert strength[6] == pytest.approx(strength[4], rel=0.2)


@pytest.mark.slow
def test_a_still_picture_neither_burns_in_nor_fades(lite0: Backbone, photo: Image) -> None:
    pixels: Pixels = (photo.permute(1, 2, 0).numpy() * 255).astype(np.uint8).copy()
    frames = [Frame(pixels, Fraction(i, 25), i) for i in range(120)]
    results = list(redraw(frames, QUICK, Dream(lite0), OpticalFlow()))
    strength = [float(np.sqrt((d**2).mean())) for d in deltas(frames, results)]
    assert strength[-1] == pytest.approx(strength[0], rel=0.15)
    assert max(strength[10:]) / min(strength[10:]) < 1.2
    drift = float(results[-1].pixels.mean()) - float(results[10].pixels.mean())
    assert abs(drift) < 2


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_dreams_as_a_cpu_does(photo: Image) -> None:
    from streamdream.backbone import load

    frames = clip(range(4))
    runs = [
        list(redraw(frames, QUICK, Dream(load("efficientnet-lite0", d)), OpticalFlow(), d))
        for d in ("cpu", "cuda")
    ]
    for a, b in zip(*(deltas(frames, r) for r in runs), strict=True):
        assert alike(a, b) > 0.9


def test_image_of_frame_is_at_work_size() -> None:
    frame = clip(range(1))[0]
    assert to_image(frame.pixels, work_size(frame.pixels.shape[:2], 96)).shape == (3, 96, 171)


def test_a_dream_that_is_no_number_ends_the_run() -> None:
    frames = redraw(clip(range(3)), QUICK, Adding(math.nan), OpticalFlow())
    with pytest.raises(ModelError, match=r"frame 0 came out as no numbers; use --precision fp32"):
        list(frames)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_views_arrange_the_source_and_the_dream(kind: type) -> None:
    rng = np.random.default_rng(0)
    source, dreamed = (rng.integers(0, 255, (40, 60, 3)).astype(kind) for _ in range(2))
    frame = Frame(source, Fraction(1, 2), 7, alpha=source[..., 0])
    alone, side, split = (arranged(frame, dreamed, view) for view in ("dream", "side", "split"))
    assert np.array_equal(alone.pixels, dreamed)
    assert np.array_equal(side.pixels, np.hstack([source, dreamed]))
    assert side.alpha is not None
    assert np.array_equal(side.alpha, np.hstack([source[..., 0]] * 2))
    assert np.array_equal(split.pixels[:, :29], source[:, :29])
    assert (split.pixels[:, 30] == np.iinfo(kind).max).all()
    assert np.array_equal(split.pixels[:, 31:], dreamed[:, 31:])
    assert all((f.time, f.index) == (frame.time, 7) for f in (alone, side, split))


@pytest.mark.parametrize(
    "fault",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"),
     MemoryError()],
)  # fmt: skip
def test_too_little_memory_is_told_and_keeps_what_was_done(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    calls: list[int] = []

    def dreaming(
        self: Dream, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        calls.append(index)
        if index == 5:
            raise fault
        yield image.clone

    monkeypatch.setattr(Dream, "__call__", dreaming)
    monkeypatch.setattr(Dream, "response", lambda *_: torch.tensor(1.0))
    with pytest.raises(ModelError, match=r"not enough \(cpu\); use a smaller --work-size"):
        dream_file(film, tmp_path / "out.mkv", QUICK)
    assert calls == [0, 1, 2, 3, 4, 5]
    assert [p.name for p in tmp_path.iterdir()] == ["out.part.mkv"]
    assert len(frame_times(tmp_path / "out.part.mkv")) == 5


class Marking(Adding):
    """An effect that marks what is new with the number of the frame."""

    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        trust = torch.zeros_like(carried.age) if carried.trust is None else carried.trust
        yield (image + carried.delta + (1 - trust) * 0.01 * (index + 1)).clone

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        return carried

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> None:
        """Hold nothing."""


@pytest.mark.parametrize("replaces", [False, True])
def test_what_was_hidden_for_a_while_gets_back_its_look(replaces: bool) -> None:
    """A board passes in front of a wall."""
    wall, board = make_clip.render(0)[:180, :320].copy(), make_clip.render(60)[:180, :80]
    frames = []
    for n in range(9):
        pixels = wall.copy()
        left = -100 + 60 * n
        if (inside := slice(max(0, left), max(0, min(320, left + 80)))).stop > inside.start:
            pixels[:, inside] = board[:, inside.start - left : inside.stop - left]
        frames.append(Frame(pixels, Fraction(n, 25), n))
    seen: dict[float, np.ndarray] = {}
    for recall in (0.0, 0.3):
        effect = Marking()
        effect.replaces = replaces
        options = QUICK.model_copy(update={"recall": recall, "memory": 1e3, "work_size": 180})
        last = list(redraw(frames, options, effect, OpticalFlow()))[-1]
        change = last.pixels.astype(float) - frames[-1].pixels
        seen[recall] = change[40:140, 110:210].mean(-1)
    assert np.median(seen[0.0]) > 9  # as new as the frame in which the board left
    assert np.median(seen[0.3]) < 4  # as old as the first frame
