from __future__ import annotations

import make_clip
import numpy as np
import pytest
import torch
from skimage import data

from streamdream.frame import Image, interleaved, planes, to_image
from streamdream.motion import OpticalFlow, gathered, warp

SIZE = make_clip.SIZE


def image(index: int) -> Image:
    return to_image(make_clip.render(index), SIZE)


@pytest.mark.parametrize(("index", "name"), [(12, "dis"), (55, "dis"), (55, "dis-fine")])
def test_known_motion_is_found_and_uncovered_places_are_not_trusted(index: int, name: str) -> None:
    movement = OpticalFlow(name).between(image(index), image(index - 1))
    truth, seen = make_clip.flow(index), make_clip.visible(index)
    assert not movement.cut
    error = np.hypot(*(movement.flow.numpy() - truth))
    trust = movement.trust.numpy()[0]
    assert error[seen].mean() < 0.2
    assert np.median(error[seen]) < 0.1
    assert trust[seen].mean() > 0.95
    # Places that were hidden or outside are where trust is withdrawn.
    assert trust[~seen].mean() < 0.45
    lost = trust < 0.5
    assert (lost & ~seen).sum() > 0.5 * (~seen).sum()


def test_flow_points_from_now_to_before() -> None:
    now, before = image(20), image(19)
    movement = OpticalFlow().between(now, before)
    seen = torch.from_numpy(make_clip.visible(20))
    carried = warp(before, movement.flow)
    assert (carried - now).abs()[:, seen].mean() < 2 / 255
    assert (before - now).abs()[:, seen].mean() > 7 / 255
    backwards = warp(before, -movement.flow)
    assert (backwards - now).abs()[:, seen].mean() > 7 / 255


@pytest.mark.parametrize("shift", [(60, 0), (-70, 10), (0, 45)])
def test_large_pans_are_followed(shift: tuple[int, int]) -> None:
    picture = data.astronaut()
    dx, dy = shift
    now = to_image(picture[120 : 120 + 270, 120 - 80 + 80 : 120 + 352], (270, 352))
    then = picture[120 + dy : 120 + dy + 270, 120 + dx : 120 + dx + 352]
    before = to_image(np.ascontiguousarray(then), then.shape[:2])
    h, w = min(now.shape[1], before.shape[1]), min(now.shape[2], before.shape[2])
    movement = OpticalFlow().between(now[:, :h, :w], before[:, :h, :w])
    assert not movement.cut
    error = movement.flow + torch.tensor(shift, dtype=torch.float32).view(2, 1, 1)
    trusted = movement.trust[0] > 0.9
    assert trusted.float().mean() > 0.4
    assert error.norm(dim=0)[trusted].median() < 0.5


def test_without_flow_everything_stands_still_and_change_is_distrusted() -> None:
    movement = OpticalFlow("none").between(image(20), image(19))
    assert movement.flow.abs().max() == 0
    calm = OpticalFlow("none").between(image(20), image(20))
    assert calm.trust.mean() > 0.999
    assert movement.trust.mean() < calm.trust.mean()


def test_repeated_warping_keeps_the_texture() -> None:
    rng = np.random.default_rng(0)
    texture = planes(rng.normal(size=(96, 96, 3)).astype(np.float32))
    texture = torch.nn.functional.avg_pool2d(texture[None], 3, 1, 1)[0]
    flow = torch.empty(2, 96, 96)
    flow[0], flow[1] = 0.37, 0.23
    moved = texture
    for _ in range(10):
        moved = warp(warp(moved, flow), -flow)
    inner = (slice(None), slice(16, -16), slice(16, -16))
    kept = float(moved[inner].std() / texture[inner].std())
    assert 0.75 < kept < 1.15
    soft = texture
    for _ in range(10):
        soft = warp(warp(soft, flow, sharp=False), -flow, sharp=False)
    assert soft[inner].std() < 0.5 * texture[inner].std()


def test_same_frames_give_the_same_flow() -> None:
    one, other = OpticalFlow(), OpticalFlow()
    one.between(image(3), image(2))
    a, b = one.between(image(11), image(10)), other.between(image(11), image(10))
    assert torch.equal(a.flow, b.flow)
    assert torch.equal(a.trust, b.trust)
    assert interleaved(a.flow).shape == (*SIZE, 2)


@pytest.mark.parametrize(("sharp", "radius"), [(True, 4), (False, 1)])
def test_the_warp_for_gpus_is_the_same_warp(sharp: bool, radius: int) -> None:
    """OpenCV rounds Lanczos' places to 1/32 px; but for that they agree, borders included."""
    torch.manual_seed(0)
    picture = image(20)[:, :90, :120]
    flow = torch.nn.functional.interpolate(8 * torch.randn(1, 2, 5, 6), (90, 120), mode="bilinear")
    error = gathered(picture, flow[0], radius) - warp(picture, flow[0], sharp)
    assert float(error.abs().max()) < 0.02
    assert float(error.square().mean().sqrt()) < 0.003
    still = torch.zeros(2, 90, 120)
    assert torch.allclose(gathered(picture, still, radius), picture, atol=1e-6)
