"""Damps what flashes: more than three general flashes a second can cause seizures.

A general flash is a pair of opposing changes of relative luminance by 10% or more of its whole
range, where the darker one is below 0.80, over a quarter of the picture (WCAG 2.2, success
criterion 2.3.1; ITU-R BT.1702).
"""

from __future__ import annotations

import cv2
import numpy as np

from streamdream.frame import Bytes
from streamdream.motion import FloatMap

GRID = (24, 14)  # (w, h) of cells that are looked at
CHANGE = 0.10
DARKER = 0.80
AREA = 0.25
MOST = 2.0  # flashes a second that pass; below the three allowed, since some are under way
CALM = 1.5  # seconds without flashes until the picture is left alone again
SLOW = 1.2  # seconds in which a damped picture follows


class FlashLimiter:
    """Follows every cell's luminance, and lets the picture follow slowly while many flash."""

    def __init__(self) -> None:
        """Begin with a calm picture."""
        self.damping = False
        self._turns: list[tuple[float, FloatMap]] = []
        self._extreme: FloatMap | None = None
        self._direction: FloatMap | None = None
        self._last: Bytes | None = None
        self._sum: np.ndarray | None = None
        self._calm_since = 0.0
        self._before = 0.0

    def __call__(self, pixels: Bytes, now: float) -> Bytes:
        """The picture (h, w, 3) to show at `now` (seconds); the same one if it is calm."""
        flashing = self._look(pixels, now)
        passed, self._before = max(0.0, now - self._before), now
        if flashing:
            self._calm_since = now
            self.damping = True
        elif self.damping and now - self._calm_since > CALM:
            self.damping = False
        if self._last is not None and self._last.shape != pixels.shape:
            high, wide = pixels.shape[:2]
            self._last, self._sum = np.asarray(cv2.resize(self._last, (wide, high))), None
        if self._last is None:
            self._last = pixels
        if not self.damping:
            self._last, self._sum = pixels, None
            return pixels
        if self._sum is None:
            self._sum = self._last.astype(np.float32)
        part = float(1 - np.exp(-min(passed, 0.2) / SLOW))
        cv2.accumulateWeighted(pixels, self._sum, part)
        self._last = np.asarray(np.round(self._sum), np.uint8)
        return self._last

    def _look(self, pixels: Bytes, now: float) -> bool:
        """Whether too much of the picture turned from light to dark or back too often."""
        coarse = np.ascontiguousarray(pixels[::4, ::4])
        small = cv2.resize(coarse, GRID, interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        linear = np.where(small <= 0.04045, small / 12.92, ((small + 0.055) / 1.055) ** 2.4)
        light = np.asarray(linear @ np.array([0.2126, 0.7152, 0.0722], np.float32), np.float32)
        if self._extreme is None or self._direction is None:
            self._extreme, self._direction = light, np.zeros_like(light)
            return False
        change = light - self._extreme
        darker = np.minimum(light, self._extreme) < DARKER
        turned = (np.abs(change) >= CHANGE) & darker & (np.sign(change) != self._direction)
        onwards = (np.sign(change) == self._direction) & (change != 0)
        self._direction = np.where(turned, np.sign(change), self._direction).astype(np.float32)
        self._extreme = np.where(turned | onwards, light, self._extreme).astype(np.float32)
        if turned.any():
            self._turns.append((now, turned.astype(np.float32)))
        self._turns = [(at, cells) for at, cells in self._turns if now - at < 1.0]
        if len(self._turns) < 2 * MOST:
            return False
        # Two turns are a flash. The last second may hold that many already.
        flashes = np.sum([cells for _, cells in self._turns], axis=0) / 2
        return float((flashes >= MOST).mean()) >= AREA
