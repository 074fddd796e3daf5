from __future__ import annotations

import numpy as np
import pytest
import torch

from streamdream.frame import composite, interleaved, planes, resize, to_image, to_pixels, work_size

RNG = np.random.default_rng(1)
PIXELS = RNG.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def test_pixels_survive_being_an_image() -> None:
    assert np.array_equal(to_pixels(to_image(PIXELS, (48, 64))), PIXELS)


def test_planes_share_memory() -> None:
    array = RNG.random((4, 5, 3)).astype(np.float32)
    tensor = planes(array)
    array[1, 2, 0] = 7
    assert tensor[0, 1, 2] == 7
    assert np.shares_memory(interleaved(tensor), array)


def test_no_strength_leaves_the_source_untouched() -> None:
    delta = torch.full((3, 24, 32), 0.5)
    assert composite(PIXELS, delta, 0.0) is PIXELS


def test_strength_scales_the_change_and_ends_at_black_and_white() -> None:
    grey = np.full((48, 64, 3), 100, np.uint8)
    delta = torch.full((3, 24, 32), 0.2)
    assert np.all(composite(grey, delta, 1.0) == 151)
    assert np.all(composite(grey, delta, 0.5) == 126)
    assert np.all(composite(grey, delta, 4.0) == 255)
    assert np.all(composite(grey, -delta, 4.0) == 0)


def test_source_detail_survives_a_small_work_size() -> None:
    """The delta is smooth, so what is fine in the result is fine in the source."""
    delta = torch.zeros(3, 6, 8)
    delta[:, 2:4, 3:5] = 0.1
    result = composite(PIXELS, delta, 1.0).astype(int)
    inside = (PIXELS > 40) & (PIXELS < 215)
    change = np.where(inside, result - PIXELS, 0)
    assert np.abs(change[:8]).max() <= 4
    assert change[20:28, 28:36].max() >= 20
    # One column at a time, the change is smooth although the pixels are noise.
    steps = np.abs(np.diff(result - PIXELS.astype(int), axis=0))[
        np.minimum(inside[1:], inside[:-1])
    ]
    assert np.percentile(steps, 99) <= 8


@pytest.mark.parametrize(
    ("size", "height", "expected"),
    [
        ((360, 640), 270, (270, 480)),
        ((1080, 1920), 270, (270, 480)),
        ((1920, 1080), 270, (480, 270)),
        ((240, 320), 270, (240, 320)),
        ((273, 315), 4320, (273, 315)),
        ((4, 4000), 270, (32, 4000)),
    ],
)
def test_work_size_follows_the_shape(
    size: tuple[int, int], height: int, expected: tuple[int, int]
) -> None:
    assert work_size(size, height) == expected


def test_resize_keeps_the_mean() -> None:
    image = to_image(PIXELS, (48, 64))
    for size in ((20, 30), (48, 64), (97, 131)):
        assert float(resize(image, size).mean()) == pytest.approx(float(image.mean()), abs=0.01)
