"""How the picture moved between two source frames, and carrying things along with it.

Whether they belong to one shot at all is told by `cuts`.

Flow is measured between source frames, never between dreams: dense inverse search
(Kroeger et al. 2016, arXiv:1603.03590) in both directions. Trust follows Sundaram, Brox and
Keutzer (2010) with the tolerance for textureless areas of Ruder, Dosovitskiy and Brox (2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import numpy as np
import torch
from cv2.typing import MatLike
from jaxtyping import Float, UInt8
from torch import Tensor

from streamdream.frame import Flow, Image, Mask, Planes, interleaved, planes

FloatMap = Float[np.ndarray, "h w"]
FlowMap = Float[np.ndarray, "h w 2"]
Colours = Float[np.ndarray, "h w 3"]
Vectors = Float[np.ndarray, "h w _"]
GreyMap = UInt8[np.ndarray, "h w"]


@dataclass(frozen=True)
class Movement:
    """From a frame to the one before it.

    `flow` (2, h, w) is backward, in pixels; `trust` (1, h, w) says where it can be believed;
    `cut` that the motion knows the two frames not to belong together (then neither means
    anything). Cuts between shots are found without it.
    """

    flow: Flow
    trust: Mask
    cut: bool = False


@runtime_checkable
class Motion(Protocol):
    """Tells how the picture moved: estimated from the frames, or known exactly."""

    def between(self, now: Image, before: Image) -> Movement:
        """The movement from `now` back to `before`, both images (3, h, w)."""
        ...


FLOWS = {  # name: (preset of dense inverse search, finest scale or None for the preset's own)
    "dis-fast": (cv2.DISOPTICAL_FLOW_PRESET_FAST, None),
    "dis": (cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, None),
    "dis-fine": (cv2.DISOPTICAL_FLOW_PRESET_MEDIUM, 0),
}


class OpticalFlow:
    """Motion estimated from the frames: "dis-fast", "dis", "dis-fine", or "none".

    With "none" everything is taken to stand still, and trusted where the picture does.
    Not to be shared between threads.
    """

    def __init__(self, name: str = "dis") -> None:
        """Set up the estimator; raises KeyError for an unknown name."""
        self._dense = None
        if name != "none":
            preset, finest = FLOWS[name]
            self._dense = cv2.DISOpticalFlow.create(preset)
            if finest is not None:
                self._dense.setFinestScale(finest)

    def between(self, now: Image, before: Image, start: Flow | None = None) -> Movement:
        """The movement from `now` back to `before`, both images (3, h, w).

        It is looked for around `start` (2, h, w) where that is known, as it is between frames
        that lie further apart.
        """
        a, b = interleaved(now), interleaved(before)
        grey_a, grey_b = _grey(a), _grey(b)
        nothing = np.zeros((*grey_a.shape, 2), np.float32)
        guess: FlowMap | tuple[float, float]
        if start is not None:
            guess, reverse = interleaved(start), -interleaved(start)
        else:
            shift = shift_between(grey_a, grey_b)
            guess, reverse = shift, (-shift[0], -shift[1])
        back, forth = nothing, nothing
        if self._dense is not None:
            back = estimate(self._dense, grey_a, grey_b, guess)
            forth = estimate(self._dense, grey_b, grey_a, reverse)
        trust = trusted(a, b, grey_a, back, forth)
        return Movement(planes(back, now.device), planes(trust[..., None], now.device))


def warp(tensor: Planes, flow: Flow, sharp: bool = True) -> Planes:
    """`tensor` (c, h, w) carried along a backward flow (2, h, w).

    `sharp` uses a Lanczos kernel of 8x8: a bilinear warp halves a dream's texture in ten
    frames and a bicubic one makes it grow without bounds in thirty. Edges are replicated.
    """
    if tensor.device.type != "cpu":
        return gathered(tensor, flow, 4 if sharp else 1)
    how = cv2.INTER_LANCZOS4 if sharp else cv2.INTER_LINEAR
    return planes(_remap(interleaved(tensor), interleaved(flow), how))


def gathered(tensor: Planes, flow: Flow, radius: int) -> Planes:
    """The same as `warp` on any device, without waiting for it.

    `radius` is that of the Lanczos kernel in pixels; 1 is bilinear instead.
    """
    c, h, w = tensor.shape
    x = flow[0] + torch.arange(w, device=flow.device)
    y = flow[1] + torch.arange(h, device=flow.device)[:, None]
    left, top = x.floor(), y.floor()
    taps = torch.arange(1 - radius, radius + 1, device=flow.device)
    across = _kernel(taps[:, None, None] - (x - left), radius)
    down = _kernel(taps[:, None, None] - (y - top), radius)
    columns = (left.long() + taps[:, None, None]).clamp(0, w - 1).flatten(1)
    rows = (top.long() + taps[:, None, None]).clamp(0, h - 1).flatten(1)
    flat = tensor.reshape(c, h * w)
    out = torch.zeros_like(flat)
    for row, weight in zip(rows, down.flatten(1), strict=True):
        places = (row * w + columns).flatten()
        around = flat[:, places].view(c, len(taps), h * w)
        out += (around * across.flatten(1)).sum(1) * weight
    return out.view(c, h, w)


def _kernel(distance: Tensor, radius: int) -> Tensor:
    """Weights (taps, h, w) that add up to one over the taps."""
    if radius == 1:
        return (1 - distance.abs()).clamp_min(0)
    weights = torch.sinc(distance) * torch.sinc(distance / radius)
    return weights / weights.sum(0)


def _remap(image: Float[np.ndarray, "h w *_"], flow: FlowMap, how: int) -> Vectors:
    h, w = flow.shape[:2]
    x, y = _places(flow)
    out = cv2.remap(image, x, y, how, borderMode=cv2.BORDER_REPLICATE)
    return out.reshape(h, w, -1).astype(np.float32, copy=False)


def carried_along(grey: FloatMap, flow: FlowMap) -> FloatMap:
    """A grey picture (h, w) carried along a backward flow (h, w, 2), softly."""
    return _remap(grey, flow, cv2.INTER_LINEAR)[..., 0]


def still(image: Image) -> Movement:
    """The movement of a picture (3, h, w) that stands still, believed everywhere."""
    return Movement(torch.zeros_like(image[:2]), torch.ones_like(image[:1]))


def _grey(image: Colours) -> GreyMap:
    return cv2.cvtColor((image * 255 + 0.5).astype(np.uint8), cv2.COLOR_RGB2GRAY).astype(np.uint8)


def estimate(
    dense: cv2.DISOpticalFlow, a: GreyMap, b: GreyMap, guess: FlowMap | tuple[float, float]
) -> FlowMap:
    """The backward flow (h, w, 2) from `a` to `b`, looked for around a guess (dx, dy).

    That is one for the whole picture, or one for every place (h, w, 2).
    """
    start = np.empty((*a.shape, 2), np.float32)
    start[:] = guess
    finest = dense.getFinestScale()
    flow = dense.calc(a, b, start).astype(np.float32, copy=False)
    # For small pictures it chooses another one and keeps it: pairs would depend on those before.
    dense.setFinestScale(finest)
    return flow


SMALL = (160, 90)  # (w, h) of the copies that large shifts are looked for in
LEAST_SHIFT = 4.0  # px of the small copy; below, the search finds its way from nothing


def shift_between(a: GreyMap, b: GreyMap) -> tuple[float, float]:
    """The one shift (dx, dy) in pixels that explains most of a large movement, else (0, 0).

    Phase correlation. Dense inverse search loses pans of more than about 50 px without it.
    """
    small_a, small_b = (
        cv2.resize(g, SMALL, interpolation=cv2.INTER_AREA).astype(np.float32) for g in (a, b)
    )
    window = cv2.createHanningWindow(SMALL, cv2.CV_32F)
    (dx, dy), response = cv2.phaseCorrelate(small_a, small_b, window)
    if response < 0.05 or max(abs(dx), abs(dy)) < LEAST_SHIFT:
        return 0.0, 0.0
    return dx * a.shape[1] / SMALL[0], dy * a.shape[0] / SMALL[1]


def trusted(a: Colours, b: Colours, grey: GreyMap, back: FlowMap, forth: FlowMap) -> FloatMap:
    """Where (h, w) the backward flow can be believed, 0 to 1.

    Not where forward and backward flow disagree (with more tolerance where there is no
    texture to tell by), where the flow comes from outside the picture, or where the colours
    differ although the flow claims to know.
    """
    h, w = grey.shape
    x, y = _places(back)
    inside = (x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)
    returned = cv2.remap(forth, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    texture = cv2.cornerMinEigenVal(grey, 7, ksize=3)
    usual = float(texture.mean()) + 1e-12
    slack = np.maximum(2.5 - texture * (4 / usual), 0.5)  # 0.5, and up to 2 more without texture
    length = _squared(back) + _squared(returned)
    agrees = _squared(back + returned) <= slack + 0.01 * length
    was = cv2.remap(b, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    off = cv2.GaussianBlur(_squared(was - a), (0, 0), 1.0)
    good = (inside & agrees & (off <= 3 * 0.10**2)).astype(np.uint8)
    good = cv2.erode(good, np.ones((3, 3), np.uint8)).astype(np.float32)
    return cv2.GaussianBlur(good, (0, 0), 0.8).astype(np.float32)


def _places(flow: FlowMap) -> tuple[FloatMap, FloatMap]:
    h, w = flow.shape[:2]
    x = flow[..., 0] + np.arange(w, dtype=np.float32)
    y = flow[..., 1] + np.arange(h, dtype=np.float32)[:, None]
    return x, y


def _squared(vectors: MatLike) -> FloatMap:
    squares = [np.square(vectors[..., i]) for i in range(vectors.shape[-1])]
    return np.asarray(sum(squares[1:], squares[0]), np.float32)
