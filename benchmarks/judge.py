"""What a dreamed clip is judged by: whether it holds still, is a dream, and is sharp.

Everything is measured at one judging size. The flow is measured between source frames, in both
directions at the finest scale, or known exactly (the sample clip), so nothing in a result can
influence the judge. Definitions:

E          mean squared difference between a result frame and the one before warped onto it, where
           the judge's flow is trusted (Lai et al. 2018, arXiv:1808.00449). The source has an E of
           its own: noise, light, errors of the flow. What a method adds to it is its excess.
NDI        incoherence of the dream itself: |D_t - W D_s|^2 / (|D_t|^2 + |W D_s|^2), D the result
           minus the source, s one or five frames before t. 0: carried perfectly, 1: a new dream
           every frame. Dreaming less does not lower it.
ghost      how much of the previous source frame shows through:
           <D_t, I_(t-1) - I_t> / |I_(t-1) - I_t|^2. Blending by b gives about b.
S          strength in bits: 0.5 log2 of how much more energy a layer shows on the result than on
           the source, mean over layers. On the layers that were dreamed on, and on layers of
           another network that no method has seen (held out).
S new      S of the dreamed layers where the picture was uncovered within the last three frames,
           minus S of the same frames elsewhere.
HF         sharpness: RMS of what a blur of one pixel takes away, result over source.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from streamdream.backbone import Backbone
from streamdream.frame import to_image

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
Picture = NDArray[np.uint8]

HELD_OUT = ("relu3_3", "relu4_3", "relu5_2")  # of VGG19
LONG = 5  # frames of the longer NDI
NEW_FOR = 3  # frames that a place counts as newly uncovered
LEAST_TRUST = 0.3  # of the picture; below it is a cut, or nothing to judge by
LEAST_MOTION = 2 / 255  # RMS between two source frames; a still frame says nothing of ghosts
OBSERVED = 6  # frames whose activations are looked at


@dataclass(frozen=True)
class Step:
    """From a frame to the one before: backward `flow` (h, w, 2) in pixels, `seen` (h, w)."""

    flow: Floats
    seen: Bools


@dataclass
class Verdict:
    """What is found about one result; nan where a clip cannot tell."""

    excess: float = np.nan
    ndi: float = np.nan
    ndi_long: float = np.nan
    ghost: float = np.nan
    s: float = np.nan
    s_held_out: float = np.nan
    s_new: float = np.nan
    hf: float = np.nan
    course: list[float] = field(default_factory=list)
    light: list[float] = field(default_factory=list)


def warp(image: NDArray[np.generic], flow: Floats, how: int = cv2.INTER_CUBIC) -> Floats:
    """An image or map carried along a backward flow."""
    h, w = flow.shape[:2]
    x = flow[..., 0] + np.arange(w, dtype=np.float32)
    y = flow[..., 1] + np.arange(h, dtype=np.float32)[:, None]
    return cv2.remap(image.astype(np.float32), x, y, how, borderMode=cv2.BORDER_REPLICATE).astype(
        np.float32, copy=False
    )


def small(pixels: Picture, width: int) -> Picture:
    """Pixels at the judging size."""
    h, w = pixels.shape[:2]
    height = max(8, round(h * width / w / 2) * 2)
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)


def estimated_steps(frames: Sequence[Picture]) -> list[Step]:
    """The movement into every frame but the first, by dense inverse search."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setFinestScale(0)
    return [_estimated(dis, b, a) for a, b in pairwise(frames)]


def _estimated(dis: cv2.DISOpticalFlow, now: Picture, before: Picture) -> Step:
    a, b = (cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in (now, before))
    back = dis.calc(a, b, np.zeros((*a.shape, 2), np.float32)).astype(np.float32)
    forth = dis.calc(b, a, np.zeros((*a.shape, 2), np.float32)).astype(np.float32)
    h, w = a.shape
    x = back[..., 0] + np.arange(w)
    y = back[..., 1] + np.arange(h)[:, None]
    returned = warp(forth, back, cv2.INTER_LINEAR)
    length = (back**2).sum(-1) + (returned**2).sum(-1)
    bad = (x < 0) | (x > w - 1) | (y < 0) | (y > h - 1)
    bad |= ((back + returned) ** 2).sum(-1) >= 0.01 * length + 0.5
    off = ((warp(before, back) - now) ** 2).mean(-1)
    bad |= np.sqrt(cv2.GaussianBlur(off, (0, 0), 1.0)) > 0.10 * 255
    return Step(back, cv2.dilate(bad.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0)


def known_step(flow: Floats, seen: Bools, size: tuple[int, int]) -> Step:
    """An exactly known movement (2, h, w), at the judging size (h, w)."""
    h, w = size
    scale = np.array([w / flow.shape[2], h / flow.shape[1]], np.float32)
    moved = cv2.resize(flow.transpose(1, 2, 0), (w, h), interpolation=cv2.INTER_AREA) * scale
    clear = cv2.resize(seen.astype(np.float32), (w, h), interpolation=cv2.INTER_AREA) > 0.999
    return Step(moved.astype(np.float32), clear)


def incoherence(now: Floats, was: Floats, seen: Bools) -> float:
    """NDI of two dreams (h, w, 3) on the same grid, where they were `seen`."""
    a, b = now[seen], was[seen]
    return float(((a - b) ** 2).sum() / ((a**2).sum() + (b**2).sum() + 1e-9))


class Judge:
    """Knows a clip's source, and judges results against it.

    `frames` are the source at the judging size, `steps` the movement into all but the first.
    `dreamed` is the network that all methods use and `layers` what they excite; `held_out`
    is another network, None if nobody looks.
    """

    def __init__(
        self,
        frames: Sequence[Picture],
        steps: Sequence[Step],
        dreamed: Backbone,
        layers: tuple[str, ...],
        held_out: Backbone | None,
        newly: bool = True,
    ) -> None:
        """Prepare to judge results of this clip; `newly` uncovered places by themselves too."""
        self._newly = newly
        self.frames, self.steps = frames, steps
        self._dreamed, self._layers, self._held_out = dreamed, layers, held_out
        self._of_source: dict[tuple[str, int], list[float]] = {}

    @cached_property
    def trusted(self) -> float:
        """The share of the picture that is judged, mean over frames."""
        return float(np.mean([s.seen.mean() for s in self.steps]))

    @cached_property
    def e_source(self) -> float:
        """E of the source itself."""
        return self._error(self.frames)

    @cached_property
    def e_still(self) -> float:
        """E of the source if nothing is warped: what the judge's flow has to beat."""
        return self._error(self.frames, still=True)

    @cached_property
    def observed(self) -> list[int]:
        """The frames whose activations are looked at: not the first three."""
        last = len(self.frames) - 1
        picks = np.linspace(min(3, last), last, min(OBSERVED, len(self.frames))).round()
        return sorted({int(t) for t in picks})

    def __call__(self, result: Sequence[Picture]) -> Verdict:
        """Judge a result: as many frames as the source, at the judging size."""
        found = Verdict(excess=self._error(result) - self.e_source)
        dreams: list[Floats] = [
            (r.astype(np.float32) - f) / np.float32(255)
            for r, f in zip(result, self.frames, strict=True)
        ]
        if max(float(np.abs(d).max()) for d in dreams) > 0:
            found.ndi, found.ndi_long = self._ndi(dreams, 1), self._ndi(dreams, LONG)
        found.ghost = self._ghost(dreams)
        found.hf = sharpness(result) / max(1e-9, sharpness(self.frames))
        found.course = [self.strength(t, result[t]) for t in self.observed]
        found.s = float(np.mean(found.course))
        if self._newly:
            found.s_new = self._strength_of_the_new(result)
        if self._held_out is not None:
            gains = [
                self._gain(self._held_out, HELD_OUT, t, result[t], None) for t in self.observed
            ]
            found.s_held_out = float(np.mean(gains))
        found.light = [
            float(r.mean()) - float(f.mean()) for r, f in zip(result, self.frames, strict=True)
        ]
        return found

    def strength(self, t: int, picture: Picture) -> float:
        """S of one frame on the layers dreamed on."""
        return self._gain(self._dreamed, self._layers, t, picture, None)

    def _judged(self) -> list[int]:
        return [t for t in range(1, len(self.frames)) if self._step(t).seen.mean() >= LEAST_TRUST]

    def _step(self, t: int) -> Step:
        return self.steps[t - 1]

    def _error(self, pictures: Sequence[Picture], still: bool = False) -> float:
        found = []
        for t in self._judged():
            flow, seen = self._step(t).flow, self._step(t).seen
            was = pictures[t - 1].astype(np.float32) if still else warp(pictures[t - 1], flow)
            found.append((((pictures[t] - was) / 255) ** 2).mean(-1)[seen].mean())
        return _mean(found)

    def _ndi(self, dreams: list[Floats], gap: int) -> float:
        found = []
        for t in range(gap, len(dreams)):
            flow, seen = self._chained(t, gap)
            if seen.mean() >= LEAST_TRUST:
                found.append(incoherence(dreams[t], warp(dreams[t - gap], flow), seen))
        return _mean(found)

    def _chained(self, t: int, gap: int) -> tuple[Floats, Bools]:
        """The movement from frame t to `gap` frames before, and what was seen all the way."""
        flow, seen = self._step(t).flow.copy(), self._step(t).seen.copy()
        for s in range(t - 1, t - gap, -1):
            step = self._step(s)
            seen &= warp(step.seen.astype(np.float32), flow, cv2.INTER_LINEAR) > 0.999
            flow = flow + warp(step.flow, flow, cv2.INTER_LINEAR)
        return flow, seen

    def _ghost(self, dreams: list[Floats]) -> float:
        found = []
        for t in self._judged():
            moved = (self.frames[t - 1].astype(np.float32) - self.frames[t]) / 255
            if (moved**2).mean() > LEAST_MOTION**2:
                found.append((dreams[t] * moved).sum() / (moved**2).sum())
        return _mean(found)

    def new(self, t: int) -> Floats:
        """Where (h, w) the picture was uncovered within the last frames: 1 there, else 0.

        What entered from outside the frame counts, a frame after a cut does not.
        """
        h, w = self.frames[0].shape[:2]
        found = np.zeros((h, w), np.float32)
        for s in range(max(1, t - NEW_FOR + 1), t + 1):
            step = self._step(s)
            if step.seen.mean() < LEAST_TRUST:
                return np.zeros((h, w), np.float32)
            found = np.maximum(warp(found, step.flow, cv2.INTER_NEAREST), ~step.seen)
        return found.astype(np.float32)

    def _strength_of_the_new(self, result: Sequence[Picture]) -> float:
        """S of what is new minus S of the rest, over frames where enough is new."""
        new, old = [], []
        for t in range(NEW_FOR, len(self.frames), 2):
            fresh = self.new(t)
            if 0.03 < fresh.mean() < 0.5:
                gains = [
                    self._gain(self._dreamed, self._layers, t, result[t], mask)
                    for mask in (fresh, 1 - fresh)
                ]
                new.append(gains[0])
                old.append(gains[1])
        return _mean(new) - _mean(old)

    def _gain(
        self, net: Backbone, layers: tuple[str, ...], t: int, picture: Picture, mask: Floats | None
    ) -> float:
        if mask is not None:
            was = energies(net, layers, self.frames[t], mask)
        else:
            if (net.name, t) not in self._of_source:
                self._of_source[net.name, t] = energies(net, layers, self.frames[t])
            was = self._of_source[net.name, t]
        now = energies(net, layers, picture, mask)
        return float(np.mean([0.5 * np.log2(n / w) for n, w in zip(now, was, strict=True)]))


@torch.inference_mode()
def energies(
    net: Backbone, layers: tuple[str, ...], picture: Picture, mask: Floats | None = None
) -> list[float]:
    """The mean squares of layers on a picture, within a mask (h, w) if there is one."""
    found = net(to_image(picture, picture.shape[:2]), layers)
    energy = []
    for layer in layers:
        squares = found[layer].square().mean((0, 1)).numpy()
        if mask is None:
            energy.append(float(squares.mean()))
            continue
        h, w = squares.shape
        share = cv2.resize(mask, (w, h), interpolation=cv2.INTER_AREA)
        energy.append(float((squares * share).sum() / max(1e-9, share.sum())))
    return energy


def sharpness(pictures: Sequence[Picture]) -> float:
    """RMS of what a blur of one pixel takes away, mean over pictures."""
    found = []
    for picture in pictures:
        grey = picture.astype(np.float32).mean(-1)
        found.append(np.sqrt(((grey - cv2.GaussianBlur(grey, (0, 0), 1.0)) ** 2).mean()))
    return _mean(found)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
