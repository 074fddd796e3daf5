"""The judge itself is judged: by dreams whose coherence is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import coherence
import judge
import make_clip
import methods
import numpy as np
import pytest
import speed

from streamdream.backbone import Backbone
from streamdream.settings import build

SHOT = range(20, 30)


@pytest.fixture(scope="module")
def judged(lite0: Backbone) -> judge.Judge:
    frames = [judge.small(make_clip.render(i), 320) for i in SHOT]
    size = frames[0].shape[:2]
    steps = [judge.known_step(make_clip.flow(i), make_clip.visible(i), size) for i in SHOT[1:]]
    return judge.Judge(frames, steps, lite0, ("block5",), None)


def texture(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    import cv2

    noise = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    return 60 * cv2.GaussianBlur(noise, (0, 0), 2.0)


def painted(judged: judge.Judge, paint: Callable[[int], np.ndarray]) -> list[np.ndarray]:
    """The source with a change painted on, kept away from black and white."""
    return [
        (f * 0.6 + 50 + paint(t)).round().clip(0, 255).astype(np.uint8)
        for t, f in enumerate(judged.frames)
    ]


def test_the_source_itself_is_calm_and_no_dream(judged: judge.Judge) -> None:
    found = judged(judged.frames)
    assert found.excess == 0
    assert found.s == pytest.approx(0, abs=1e-6)
    assert found.hf == pytest.approx(1)
    assert np.isnan(found.ndi)
    assert judged.e_source < 0.5 * judged.e_still


def test_a_dream_glued_to_the_world_is_told_from_one_glued_to_the_screen(
    judged: judge.Judge,
) -> None:
    shape = judged.frames[0].shape
    glued = [texture(0, shape)]
    for step in judged.steps:
        glued.append(judge.warp(glued[-1], step.flow))
    grey = [np.full_like(f, 128) for f in judged.frames]
    still = judge.Judge(grey, judged.steps, judged._dreamed, ("block5",), None)

    def found(dream: Callable[[int], np.ndarray]) -> judge.Verdict:
        return still([(128 + dream(t)).round().astype(np.uint8) for t in range(len(grey))])

    world = found(lambda t: glued[t])
    screen = found(lambda t: texture(0, shape))
    fresh = found(lambda t: texture(t, shape))
    assert world.ndi < 0.02
    assert world.ndi_long < 0.1
    assert 0.1 < screen.ndi < 0.9
    assert fresh.ndi == pytest.approx(1, abs=0.05)
    assert fresh.ndi_long == pytest.approx(1, abs=0.05)
    assert world.excess < 0.1 * screen.excess < 0.1 * fresh.excess


def test_blending_with_the_frame_before_shows_as_a_ghost(judged: judge.Judge) -> None:
    frames = judged.frames
    blended = [
        (0.5 * f + 0.5 * frames[max(0, t - 1)]).round().astype(np.uint8)
        for t, f in enumerate(frames)
    ]
    assert judged(blended).ghost == pytest.approx(0.5, abs=0.02)
    assert judged(painted(judged, lambda t: np.float32(0) * frames[t])).ghost < 0.5


def test_blur_is_seen_as_blur_and_weak_dreams_as_weak(judged: judge.Judge) -> None:
    blurred = judged([methods.blur(f) for f in judged.frames])
    assert blurred.hf < 0.7
    assert blurred.s < 0


@pytest.mark.slow
def test_the_comparison_runs_and_ours_is_calmer(tmp_path: Path) -> None:
    clip = coherence.Clip(coherence.SAMPLE, 8, 240)
    options = build({"work_size": 96})
    rows = [r for r in methods.ROWS if r.name in (methods.REFERENCE, "blend 0.5", methods.OURS)]
    found = coherence.compare(clip, rows, options, tmp_path)
    table = {n: coherence.figures(f, found[methods.REFERENCE]) for n, f in found.items()}
    ours, blend = table[methods.OURS], table["blend 0.5"]
    assert table[methods.REFERENCE]["passes"] == pytest.approx(19, abs=0.4)
    assert ours["passes"] < 5
    assert ours["NDI"] < min(blend["NDI"], 0.2)
    assert ours["E/ref"] < 0.3
    assert abs(ours["ghost"]) < 0.1 < blend["ghost"]
    assert {p.name for p in tmp_path.iterdir()} == {"clip-frames.jpg", "clip-differences.jpg"}
    assert not coherence.disqualified(table[methods.REFERENCE])
    assert coherence.disqualified({**ours, "HF": 0.5}) == "HF"


@pytest.mark.alone
@pytest.mark.slow
def test_neither_time_nor_memory_grows_with_length() -> None:
    """A shorter run of the command."""
    slower, larger = speed.by_length(600)
    assert slower < 1.5  # other programs run on this machine too
    assert larger < 1.04


@pytest.mark.alone
def test_stages_are_timed_each_without_the_ones_within_it() -> None:
    import time

    clock = speed.Stages("cpu")
    inner = clock.wrapped("inner", lambda: time.sleep(0.05))

    def outer() -> None:
        time.sleep(0.02)
        inner()

    clock.wrapped("outer", outer)()
    spent = {stage: seconds for (_, stage), seconds in clock.seconds.items()}
    assert 0.05 <= spent["inner"] < 0.2
    assert 0.02 <= spent["outer"] < 0.05
