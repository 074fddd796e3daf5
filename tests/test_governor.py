from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
import torch

from streamdream.backbone import Backbone
from streamdream.dream import Dream
from streamdream.governor import EFFORT, PERIOD, Governor
from streamdream.motion import OpticalFlow
from streamdream.options import Options
from streamdream.pipeline import redraw

GREY = torch.full((3, 32, 32), 0.4)


def begun(response: float = 1.0, age: float = 3.0) -> Governor:
    delta = torch.full_like(GREY, 0.1)
    return Governor.begin(GREY, delta, torch.tensor(response), torch.tensor(age), Fraction(0))


def after(governor: Governor, frames: int) -> Governor:
    for _ in range(frames):
        governor = governor.after(GREY, torch.zeros_like(GREY), torch.full_like(GREY, 0.1))
    return governor


def test_it_is_time_not_frames_that_make_a_look_due() -> None:
    assert not after(begun(), 1000).due(PERIOD / 2)
    assert begun().due(PERIOD)


def test_a_strong_response_lowers_the_effort_and_a_weak_one_raises_it() -> None:
    start = after(begun(), 5)
    looks = [start.looked(PERIOD, torch.tensor(r), torch.tensor(8.0)) for r in (0.8, 1.0, 1.25)]
    assert looks[0].effort > looks[1].effort > looks[2].effort
    assert float(looks[1].effort) == pytest.approx(float(start.effort))


@pytest.mark.parametrize(("response", "bound"), [(1e-9, EFFORT[1]), (50.0, EFFORT[0])])
def test_the_effort_stays_in_its_bounds(response: float, bound: float) -> None:
    governor = begun()
    for n in range(1, 20):
        governor = after(governor, 5)
        age = torch.tensor(3.0 + 5 * n)
        governor = governor.looked(n * PERIOD, torch.tensor(response), age)
    assert float(governor.effort) == pytest.approx(bound)


def test_a_picture_that_is_all_new_is_taken_as_it_is() -> None:
    start = after(begun(), 5)
    new = start.looked(PERIOD, torch.tensor(0.5), torch.tensor(0.0))
    assert float(new.effort) == pytest.approx(float(start.effort))
    assert float(new.look.response) == pytest.approx(0.5)


def test_other_light_is_another_picture() -> None:
    start = after(begun(), 5)
    dim = replace(start, room=start.room / 4)
    same, other = (g.looked(PERIOD, torch.tensor(0.5), torch.tensor(8.0)) for g in (start, dim))
    assert float(start.effort) < float(other.effort) < float(same.effort)


@pytest.mark.slow
def test_a_still_picture_does_not_dream_ever_stronger(lite0: Backbone) -> None:
    """The response after six seconds is that of the first frame."""
    import make_clip

    from streamdream.frame import Frame, to_image, work_size

    frames = [Frame(make_clip.render(0), Fraction(n, 25), n) for n in range(150)]
    options = Options(work_size=135)
    effect = Dream(lite0)
    image = to_image(frames[0].pixels, work_size(frames[0].pixels.shape[:2], 135))
    results = list(redraw(frames, options, effect, OpticalFlow()))
    first, last = (
        float(
            effect.response(image, to_image(r.pixels, work_size(r.pixels.shape[:2], 135)), options)
        )
        for r in (results[0], results[-1])
    )
    assert last == pytest.approx(first, rel=0.12)
