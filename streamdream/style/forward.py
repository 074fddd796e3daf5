"""Painting with networks in one pass a frame, and making what they paint hold still.

A network that paints every frame on its own invents its strokes anew at the slightest change. So
each painting is mixed with the last one, carried along the motion: a running mean that follows the
things in the picture. A mean of strokes that differ is weaker than each of them, and after many
frames nothing but blur; so in every band of a Laplacian pyramid (Burt and Adelson, 1983) the mean
is brought to the contrast that the new painting has at that place. Where the new painting is
another one even when both are blurred, the picture itself has changed, and more of it is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import cv2
import torch
import torch.nn.functional as F

from streamdream.frame import (
    Image,
    Mask,
    Pixels,
    Planes,
    Resized,
    Size,
    interleaved,
    planes,
    resize,
)
from streamdream.options import SMALLEST, Look
from streamdream.pipeline import Begin, Carried, Picture
from streamdream.polish.shown import shown
from streamdream.processors import alone, using
from streamdream.style.colours import dreamed_on, painted_on

SHORTER = 15  # the mean's time constant is so much shorter than `memory`: 0.2 s of 3 s
BANDS = 3  # whose contrast is held: strokes of up to 8 px
CELL = 8  # px, that contrast is measured over
GAIN = 1.2  # of a band, at most; or places where nothing agrees grow a texture of their own
APART = 0.1  # between two blurred paintings, of 1; beyond, they show different things
SOME = 1e-5  # of contrast squared; less is nothing
MOST = 4096  # px; a frame is not painted larger than that either way
SHORTEST = 1e-3  # s
AT_ONCE = 4  # frames in the making: as many as are read ahead
LARGE = 1280 * 720  # px; larger ones would take too much memory side by side
FAINT = 0.05  # trust below which nothing is carried


@dataclass(frozen=True)
class Begun:
    """A painting that is being made, by these options."""

    options: Look
    painting: Future[Image]


@runtime_checkable
class Painter(Protocol):
    """Paints a frame in one pass.

    `reads_carried`: what it paints depends on what was carried; else on the frame alone.
    """

    @property
    def reads_carried(self) -> bool: ...

    def __call__(self, image: Image, carried: Image, trust: Mask, options: Look) -> Image:
        """The painting (3, h, w) of an image, in [0, 1].

        `carried` (3, h, w) is the last painting moved to now, where `trust` (1, h, w) is not 0;
        elsewhere it is the image.
        """
        ...


class Forward:
    """The effect around a painter: one pass a frame, held still by `steadied`.

    `options.memory` is how long strokes stay, and 0 the bare painter. One that holds its strokes
    by itself trusts what was carried the less, the shorter the memory.
    """

    def __init__(self, painter: Painter, replaces: bool = True, steady: bool = True) -> None:
        """Paint with `painter`, in place of the source (`replaces`) or as a change of it.

        A painter that holds its paintings still by itself does not need `steady`.
        """
        self.painter, self.replaces, self._steady = painter, replaces, steady
        self._begun: dict[int, Begun] = {}
        self._together: int | None = None  # processors for what was not begun

    def takes_part(self, options: Look) -> bool:
        """Always."""
        return True

    @torch.no_grad()
    def __call__(
        self, image: Image, carried: Carried, options: Look, index: int
    ) -> Iterator[Picture]:
        """Yield the painting, once."""
        before = image + carried.delta
        trust = torch.zeros_like(image[:1]) if carried.trust is None else carried.trust
        kept = trust
        if carried.trust is not None and not self._steady:
            kept = trust * math.exp(-carried.elapsed / max(options.memory, SHORTEST))
        begun = self._begun.pop(index, None)
        if begun is not None and begun.options == options:
            result = begun.painting.result()
        else:
            with nullcontext() if self._together is None else using(self._together):
                result = self._painted(image, before, kept, options)
        if carried.trust is not None and self._steady and options.memory > 0:
            # At the rims of what is trusted the delta is fainter: there must be no source in it.
            last = image + carried.delta / trust.clamp_min(FAINT)
            share = 1 - math.exp(-carried.elapsed * SHORTER / options.memory)
            result = steadied(result, last, trust, share)
        yield result.clone

    def prepared(self, image: Image, carried: Carried, options: Look) -> Carried:
        """What was carried, as it is: nothing is chosen for a scene."""
        return carried

    @contextmanager
    def beginning(self, device: torch.device | str) -> Iterator[Begin | None]:
        """While this is open, what begins to paint a frame; see `pipeline.Early`.

        Frames that do not wait for each other are painted side by side. That takes less time than
        the same processors working together at one: those would wait for each other all the time.
        Only one run at a time can have that: another one paints when it comes to a frame.
        """
        threads, taken = torch.get_num_threads(), self._together is not None
        if taken or threads < 2 or self.painter.reads_carried or torch.device(device).type != "cpu":
            yield None
            return
        workers = min(threads, AT_ONCE)
        with alone(workers, threads // workers) as pool, using(1):

            def begin(image: Image, options: Look, index: int) -> None:
                if image[0].numel() <= LARGE:
                    self._begun[index] = Begun(options, pool.submit(self._alone, image, options))

            self._together = threads
            try:
                yield begin
            finally:
                self._begun.clear()
                self._together = None

    @torch.no_grad()
    def _alone(self, image: Image, options: Look) -> Image:
        """What is painted of an image to which nothing is carried."""
        return self._painted(image, image, torch.zeros_like(image[:1]), options)

    def response(self, image: Image, result: Image, options: Look, carried: Carried) -> None:
        """None: the contrast of each new painting holds the strength, not a governor."""

    def laid_on(self, pixels: Pixels, image: Resized, delta: Resized, options: Look) -> Pixels:
        """Full-size pixels (H, W, 3) with the painting `image + delta` on them."""
        if self.replaces:
            return painted_on(pixels, image, delta, options)
        return dreamed_on(pixels, shown(image, delta, options, options.strength), options)

    def _painted(self, image: Image, before: Image, trust: Mask, options: Look) -> Image:
        """What is painted, with strokes of `style_scale`: at another size, then resized."""
        size = _size(image)
        scale = max(options.style_scale, max(size) / MOST)
        high, wide = (max(SMALLEST, round(side / scale)) for side in size)
        given = [resize(each, (high, wide)) for each in (image, before, trust)]
        found = self.painter(given[0].clamp(0, 1), given[1], given[2].clamp(0, 1), options)
        return resize(found, size).clamp(0, 1)


def steadied(painted: Image, carried: Image, trust: Mask, share: float) -> Image:
    """A new painting (3, h, w) mixed with the last one, `carried` to now, without losing contrast.

    `share` is how much of the new one is taken where `trust` (1, h, w) is 1; where that is 0, all.
    """
    size = _size(painted)
    cells = -(-size[0] // CELL), -(-size[1] // CELL)
    apart = _shrunk(painted - carried, cells).square().mean(0, keepdim=True)
    changed = (apart / APART**2 - 0.5).clamp(0, 1)
    keep = trust * _enlarged((1 - share) * (1 - changed / 2), size)
    mixed = painted + (carried - painted) * keep
    fresh, _ = _bands(painted)
    bands, result = _bands(mixed)
    for band, new in zip(reversed(bands), reversed(fresh), strict=True):
        want, have = (_shrunk(b.square(), cells).mean(0, keepdim=True) for b in (new, band))
        gain = ((want + SOME) / (have + SOME)).sqrt().clamp(1 / GAIN, GAIN)
        result = _enlarged(result, _size(band)) + band * _enlarged(gain, _size(band))
    return result.clamp(0, 1)


def _bands(image: Image) -> tuple[list[Image], Image]:
    """A Laplacian pyramid: the bands, the finest first, and what is left, blurred."""
    found = []
    for _ in range(BANDS):
        h, w = _size(image)
        half = _shrunk(image, (-(-h // 2), -(-w // 2)))
        found.append(image - _enlarged(half, (h, w)))
        image = half
    return found, image


def _size(image: Planes) -> Size:
    return image.shape[-2], image.shape[-1]


def _shrunk(image: Planes, size: Size) -> Resized:
    """Averaged to a smaller size. OpenCV does that several times faster on a CPU."""
    if image.device.type != "cpu":
        return F.interpolate(image[None], size, mode="area")[0]
    return _resized(image, size, cv2.INTER_AREA)


def _enlarged(image: Planes, size: Size) -> Resized:
    if image.device.type != "cpu":
        return F.interpolate(image[None], size, mode="bilinear")[0]
    return _resized(image, size, cv2.INTER_LINEAR)


def _resized(image: Planes, size: Size, how: int) -> Resized:
    found = cv2.resize(interleaved(image), size[::-1], interpolation=how)
    return planes(found.reshape(*size, -1))
