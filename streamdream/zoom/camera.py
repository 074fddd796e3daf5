"""A camera over a picture: exact motion, known and not estimated.

A step of the camera is a similarity: it says where what is seen at a place of the new picture
was in the one before. `resampled` follows it without losing sharpness over hundreds of steps,
and without standing still where things move by less than a pixel's fraction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import torch
from jaxtyping import Float

from streamdream.frame import Array, Flow, Mask, Planes, Size, interleaved, planes
from streamdream.motion import gathered

Matrix = Float[np.ndarray, "3 3"]
FloatMap = Float[np.ndarray, "h w"]

EDGE = 4.0  # px over which what lies beyond the last picture takes over
TABLE = 32  # positions a pixel that OpenCV's Lanczos kernel is tabulated at
MOMENTS = 16  # at which moving rates are looked at within a step


@dataclass(frozen=True)
class Rates:
    """How a camera moves at a moment.

    `zoom` is the factor by which things grow in a second (below 1 they shrink), `rotate` the
    degrees a second that they turn clockwise, `pan` (x, y) where the camera goes, in widths and
    heights of the picture a second, `centre` (x, y) the point that it zooms and turns about,
    in widths and heights from the upper left.
    """

    zoom: float = 1.0
    rotate: float = 0.0
    pan: tuple[float, float] = (0.0, 0.0)
    centre: tuple[float, float] = (0.5, 0.5)


def step(rates: Callable[[float], Rates], frame: int, seconds: float, size: Size) -> Matrix:
    """The motion of a camera from a frame to the next: new places to old ones, in pixels.

    That takes so many `seconds`. `rates` are looked at MOMENTS times in between, at places from
    `frame` to `frame` + 1, so that a movie ends at the same place at any frame rate. `size` is
    that of the picture (h, w).
    """
    found = [rates(frame + (i + 0.5) / MOMENTS) for i in range(MOMENTS)]
    if all(one == found[0] for one in found):
        return similarity(found[0], seconds, size)
    total = np.eye(3)
    for one in found:
        total = total @ similarity(one, seconds / MOMENTS, size)
    return total


def similarity(rates: Rates, seconds: float, size: Size) -> Matrix:
    """The motion in so many seconds at constant rates, new places (x, y, 1) to old ones.

    Pixels have their centres at whole numbers.
    """
    h, w = size
    centre = np.array([rates.centre[0] * w - 0.5, rates.centre[1] * h - 0.5])
    angle = -math.radians(rates.rotate * seconds)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    turn *= rates.zoom**-seconds
    pan = np.array([rates.pan[0] * w, rates.pan[1] * h]) * seconds
    found = np.eye(3)
    found[:2, :2] = turn
    found[:2, 2] = centre - turn @ centre + pan
    return found


def growth(matrix: Matrix) -> float:
    """The factor by which things grow in a motion."""
    return 1 / math.sqrt(abs(float(np.linalg.det(matrix[:2, :2]))))


def places(matrix: Matrix, size: Size) -> tuple[FloatMap, FloatMap]:
    """Where (x, y) each pixel of a picture (h, w) was, both (h, w)."""
    h, w = size
    x, y = np.arange(w, dtype=np.float64), np.arange(h, dtype=np.float64)[:, None]
    found = [matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] for i in (0, 1)]
    return found[0].astype(np.float32), found[1].astype(np.float32)


def flow_of(matrix: Matrix, size: Size) -> Flow:
    """A motion as a backward flow (2, h, w), in pixels."""
    x, y = places(matrix, size)
    h, w = size
    grid = np.arange(w, dtype=np.float32), np.arange(h, dtype=np.float32)[:, None]
    return planes(np.dstack([x - grid[0], y - grid[1]]))


def resampled(image: Planes, x: FloatMap, y: FloatMap) -> Planes:
    """`image` (c, h, w) as it is at these places (h, w): a Lanczos kernel of 8x8.

    Beyond the edges it goes on mirrored.
    """
    if image.device.type != "cpu":
        h, w = image.shape[-2:]
        x, y = mirrored(x, w), mirrored(y, h)
        rows, columns = x.shape
        grid = np.arange(columns, dtype=np.float32), np.arange(rows, dtype=np.float32)[:, None]
        flow = planes(np.dstack([x - grid[0], y - grid[1]]), image.device)
        return gathered(image, flow, 4)
    return planes(_exact(interleaved(image), x, y))


def mirrored(place: FloatMap, length: int) -> FloatMap:
    """The same places within a side of `length` pixels, beyond whose ends it goes on mirrored."""
    last = max(length - 1, 1)
    return np.abs((place + last) % (2 * last) - last).astype(np.float32)


def _exact(image: Array, x: FloatMap, y: FloatMap) -> Array:
    """OpenCV's kernel, with its two faults mended to the first order by the picture's slope.

    It is that of the nearest 1/32 of a pixel, and moves things by up to 0.02 pixels more or
    less than it should: too little to see once, and much after a hundred times.
    """
    near = [np.rint(place * TABLE) / TABLE for place in (x, y)]
    out = cv2.remap(image, near[0], near[1], cv2.INTER_LANCZOS4, borderMode=cv2.BORDER_REFLECT_101)
    out = out.reshape(*x.shape, -1)
    astray = _astray()
    right, down = _slopes(image)
    for slope, place, at in ((right, x, near[0]), (down, y, near[1])):
        moved = cv2.remap(slope, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        off = place - at - astray[np.rint(at * TABLE).astype(np.int64) % TABLE]
        out += moved.reshape(out.shape) * off[..., None]
    return out


@cache
def _astray() -> Float[np.ndarray, 32]:
    """By how much (pixels) OpenCV's kernel misses, for each of its positions."""
    ramp = np.arange(32, dtype=np.float32)[None]
    want = 16 + np.arange(TABLE, dtype=np.float32)[None] / TABLE
    got = cv2.remap(ramp, want, np.zeros_like(want), cv2.INTER_LANCZOS4)
    return (got - want)[0].astype(np.float32)


def _slopes(image: Array) -> tuple[Array, Array]:
    """The change a pixel to the right and down, each (h, w, c); Farid's five-tap derivative."""
    kernel = np.array([1, -8, 0, 8, -1], np.float32) / 12
    one = np.ones(1, np.float32)
    border = cv2.BORDER_REFLECT_101
    right = cv2.sepFilter2D(image, cv2.CV_32F, kernel, one, borderType=border)
    down = cv2.sepFilter2D(image, cv2.CV_32F, one, kernel, borderType=border)
    return right.reshape(image.shape), down.reshape(image.shape)


def inside(x: FloatMap, y: FloatMap, size: Size) -> Mask | None:
    """How far (1, h, w) places lie within a picture (h, w): 1 inside, 0 at its edge and beyond.

    None if all of them do.
    """
    h, w = size
    depth = np.minimum(np.minimum(x, w - 1 - x), np.minimum(y, h - 1 - y))
    if float(depth.min()) >= 0:
        return None
    return torch.from_numpy(np.clip(depth / EDGE, 0, 1)[None].astype(np.float32))
