"""Masks that lie where they were drawn: pictures, videos, polygons. And soft edges for all."""

from __future__ import annotations

from collections.abc import Generator
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from jaxtyping import Float

from streamdream.errors import SourceError
from streamdream.frame import Frame, Size, eight_bits, interleaved, on_black, planes
from streamdream.masks.parts import Part
from streamdream.sources import Glimpse, VideoSource
from streamdream.stills import mask_of, whiteness

Map = Float[np.ndarray, "h w"]

BLACK = 2 / 255  # what codecs make of black, and as near to white
FINE = 4  # lines in a row of pixels that a polygon is drawn by
WIDE = 6  # px; a wider feather is made of a smaller copy


class Place(Protocol):
    """A mask that does not look at the frame."""

    stays: bool

    def at(self, time: Fraction, size: Size) -> Map:
        """How much (h, w), 0 to 1, it holds at a time."""
        ...

    def close(self) -> None:
        """Let its file go."""
        ...


def placed(part: Part) -> Place:
    """The place that a part names; raises SourceError for a file that cannot be read."""
    if part.kind == "polygon":
        return Polygon(part.numbers)
    with VideoSource(part.path, frames=1) as source:
        still = source.info.still
    return Still(part.path) if still else Clip(part.path, part.looped)


class Polygon:
    """A polygon, of x and y in turn, in parts of the picture from its upper left corner."""

    stays = True

    def __init__(self, numbers: tuple[float, ...]) -> None:
        """Of these corners."""
        self._points = np.array(numbers).reshape(-1, 2)

    def at(self, time: Fraction, size: Size) -> Map:
        """The same at any time; its edge is antialiased."""
        # Drawn by lines, and exact along them: what libraries draw reaches beyond its edges.
        h, w = size
        found = np.zeros(size)
        columns = np.arange(w)
        x, y = (self._points * [w, h]).T
        to_x, to_y = np.roll(x, -1), np.roll(y, -1)
        for line in range(h * FINE):
            height = (line + 0.5) / FINE
            cut = (y <= height) != (to_y <= height)
            way = (height - y[cut]) / (to_y[cut] - y[cut])
            ends = np.sort(x[cut] + way * (to_x[cut] - x[cut]))
            for begin, end in zip(ends[::2], ends[1::2], strict=True):
                found[line // FINE] += (end - columns).clip(0, 1) - (begin - columns).clip(0, 1)
        return (found / FINE).clip(0, 1).astype(np.float32)

    def close(self) -> None:
        """Nothing."""


class Still:
    """A picture, stretched over the frame."""

    stays = True

    def __init__(self, path: str) -> None:
        """Of this file."""
        self._path = Path(path)
        mask_of(self._path, (1, 1))

    def at(self, time: Fraction, size: Size) -> Map:
        """The same at any time."""
        return _cleared(interleaved(mask_of(self._path, size))[..., 0])

    def close(self) -> None:
        """Nothing."""


class Clip:
    """A video or pictures in a row, by its times: held at its end, or looped.

    What it gives depends on nothing but the time. Going back costs opening it again.
    """

    stays = False

    def __init__(self, path: str, looped: bool) -> None:
        """Open it; raises SourceError."""
        self._path, self._looped = path, looped
        self._length: Fraction | None = None
        self._now: Frame | None = None
        self._open()

    def at(self, time: Fraction, size: Size) -> Map:
        """How white its picture is at a time; before its first one that."""
        time = max(time, Fraction(0))
        if self._looped and self._length:
            time %= self._length
        if self._shown is not None and time < self._shown.time:
            self.close()
            self._open()
        while self._next is not None and (self._shown is None or self._next.time <= time):
            self._shown, self._next = self._next, next(self._glimpses, None)
        shown = self._shown
        if shown is None:
            raise SourceError(self._path, "no picture in it can be decoded")
        if self._next is None and self._looped and self._length is None:
            self._length = shown.time + 1 / (self._source.info.rate or Fraction(25))
            if time >= self._length:
                return self.at(time, size)
        if self._now is None or self._now.index != shown.index:
            self._now = shown.frame()
        pixels = eight_bits(on_black(self._now)).astype(np.float32) / np.float32(255)
        return _cleared(interleaved(whiteness(planes(pixels), size))[..., 0])

    def close(self) -> None:
        """Close the file."""
        self._glimpses.close()
        self._source.close()

    def _open(self) -> None:
        self._source = VideoSource(self._path)
        self._glimpses: Generator[Glimpse, None, None] = self._source.skim()
        self._shown: Glimpse | None = None
        self._next = next(self._glimpses, None)
        self._now = None


def _cleared(mask: Map) -> Map:
    return ((mask - np.float32(BLACK)) / np.float32(1 - 2 * BLACK)).clip(0, 1)


def softened(mask: Map, width: float) -> Map:
    """A mask (h, w) whose edges come up over about `width` pixels, half of them outside.

    So that small things, which an erosion would swallow, stay.
    """
    if width < 1:
        return mask
    soft = cv2.GaussianBlur(mask, (0, 0), width / 4, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(soft, np.float32).clip(0, 1)


def feathered(mask: Map, width: float) -> Map:
    """A mask (h, w) that only comes up over `width` pixels inside its edges.

    Eroded by half of that and blurred over it, and nowhere more than it was: what is 0 stays so.
    """
    if width < 1:
        return mask
    h, w = mask.shape
    scale = min(1.0, 2 * WIDE / width)
    size = max(1, round(w * scale)), max(1, round(h * scale))
    small = mask if scale == 1 else cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
    radius = max(1, round(width * scale / 2))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
    soft = cv2.GaussianBlur(
        cv2.erode(small, disc), (0, 0), width * scale / 4, borderType=cv2.BORDER_REPLICATE
    )
    if scale < 1:
        soft = cv2.resize(soft, (w, h), interpolation=cv2.INTER_LINEAR)
    return np.minimum(mask, np.asarray(soft, np.float32).clip(0, 1))
