"""How a result is arranged: alone, beside its source, half and half; with square pixels."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import cast

import cv2
import numpy as np

from streamdream.frame import Frame, Levels, Pixels, Size, white
from streamdream.info import VideoInfo

LINE = 320  # a split picture's dividing line is this part of its width


def arranged_info(info: VideoInfo, view: str) -> VideoInfo:
    """What frames are like that `arranged` gives."""
    h, w = info.size
    return replace(info, size=(h, 2 * w)) if view == "side" else info


def arranged(frame: Frame, dreamed: Pixels, view: str) -> Frame:
    """A frame with its `dreamed` pixels (h, w, 3) for its own, as `view` has it.

    "dream" shows them alone, "side" beside the source (h, 2w, 3), "split" the source's left
    half and the dream's right one.
    """
    if view == "dream":
        return replace(frame, pixels=dreamed)
    if view == "side":
        alpha = None if frame.alpha is None else _beside(frame.alpha, frame.alpha)
        return replace(frame, pixels=_beside(frame.pixels, dreamed), alpha=alpha)
    w = dreamed.shape[1]
    half, line = w // 2, max(1, w // LINE)
    pixels = dreamed.copy()
    pixels[:, :half] = frame.pixels[:, :half]
    pixels[:, half - line // 2 : half - line // 2 + line] = white(pixels)
    return replace(frame, pixels=pixels)


def _beside(left: Levels, right: Levels) -> Levels:
    return np.concatenate([left, right], axis=1)  # type: ignore[return-value]


def square(info: VideoInfo, even: bool = False) -> Size:
    """The size (h, w) at which a picture's pixels are square, with `even` sides if asked for.

    One whose pixels are square keeps its size.
    """
    (h, w), aspect = info.size, info.sample_aspect
    if aspect == 1:
        return info.size
    high, wide = (Fraction(h), w * aspect) if aspect > 1 else (h / aspect, Fraction(w))
    unit = 2 if even else 1
    return max(1, round(high / unit)) * unit, max(1, round(wide / unit)) * unit


def squared(frame: Frame, size: Size) -> Frame:
    """A frame resized to `size` (h, w), if it is not of it."""
    h, w = size

    def fitted(levels: Levels) -> Levels:
        return cast(Levels, cv2.resize(levels, (w, h), interpolation=cv2.INTER_CUBIC))

    if frame.pixels.shape[:2] == size:
        return frame
    alpha = None if frame.alpha is None else fitted(frame.alpha)
    return replace(frame, pixels=fitted(frame.pixels), alpha=alpha)
