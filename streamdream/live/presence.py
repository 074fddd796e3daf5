"""Whether anybody moves, and what follows from it: the gate of the dream, the attract loop."""

from __future__ import annotations

import math
from collections import deque

import cv2
import numpy as np

from streamdream.frame import Bytes
from streamdream.motion import FloatMap

GRID = (64, 36)  # (w, h)
COARSE, FINE = 0.16, 0.02  # change of a cell, of 1, that counts at the least and most sensitive
OFTEN = 0.02  # of the cells; more of them is movement
OPENS, CLOSES = 3.0, 0.5  # seconds in which the gate opens and closes
KEPT, KEPT_RATE = 12.0, 12  # seconds of movement that are kept, at so many pictures a second
JPEG = 85


class Presence:
    """How much moves in front of the camera, 0 to 1, whatever the light does."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self.movement = 0.0
        self.still_for = 0.0
        self._usual: FloatMap | None = None
        self._then = 0.0

    def look(self, pixels: Bytes, now: float, sensitivity: float) -> float:
        """Look at a picture (h, w, 3) at `now` (seconds); returns the movement.

        `sensitivity` 0 to 1. The picture is compared with how it was over the last second.
        """
        coarse = np.ascontiguousarray(pixels[::3, ::3])
        small = cv2.resize(coarse, GRID, interpolation=cv2.INTER_AREA)
        grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY)
        seen = np.asarray(grey, np.float32) / 255
        seen = np.asarray(seen - seen.mean(), np.float32)  # a lamp is no visitor
        passed, self._then = now - self._then, now
        if self._usual is None:
            self._usual = seen
            return 0.0
        least = COARSE * (FINE / COARSE) ** sensitivity
        share = float((np.abs(seen - self._usual) > least).mean())
        self._usual += (seen - self._usual) * np.float32(1 - math.exp(-min(passed, 1.0)))
        value = min(1.0, share / (10 * OFTEN))
        self.movement += (value - self.movement) * (0.5 if value > self.movement else 0.15)
        self.still_for = 0.0 if share > OFTEN else self.still_for + min(passed, 1.0)
        return self.movement


class Gate:
    """How much of the dream is let through, 0 to 1: opens slowly, closes quickly."""

    def __init__(self) -> None:
        """Begin open."""
        self.open = 1.0
        self._then: float | None = None

    def __call__(self, mode: str, moving: bool, now: float) -> float:
        """The part let through at `now` (seconds) under "off", "still" or "motion"."""
        passed = 0.0 if self._then is None else min(0.5, now - self._then)
        self._then = now
        goal = mode == "off" or moving == (mode == "motion")
        move = passed / (OPENS if goal else -CLOSES)
        self.open = min(1.0, max(0.0, self.open + move))
        return self.open * self.open * (3 - 2 * self.open)


class Attraction:
    """The last seconds in which somebody moved, shown again and again while nobody does.

    They are kept in memory only, as JPEG.
    """

    def __init__(self, after: float) -> None:
        """Show them after so many seconds of stillness."""
        self._after = after
        self._kept: deque[bytes] = deque(maxlen=int(KEPT * KEPT_RATE))
        self._next = self._until = 0.0
        self._shown: Bytes | None = None
        self._place = 0
        self._step = 1
        self.playing = False

    def __call__(self, pixels: Bytes, still_for: float, now: float) -> Bytes:
        """The picture (h, w, 3) to go on with at `now` (seconds)."""
        was = self.playing
        self.playing = still_for >= self._after and len(self._kept) > KEPT_RATE
        if not self.playing:
            if still_for < 1.0 and now >= self._next:
                self._next = now + 1 / KEPT_RATE
                done, found = cv2.imencode(
                    ".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG]
                )
                if done:
                    self._kept.append(found.tobytes())
            return pixels
        if not was:
            self._place, self._step, self._next, self._shown = 0, 1, now, None
        if now >= self._next or self._shown is None:
            self._next = now + 1 / KEPT_RATE
            if not 0 <= self._place + self._step < len(self._kept):
                self._step = -self._step  # there and back, so that it never jumps
            self._place += self._step
            coded = np.frombuffer(self._kept[self._place], np.uint8)
            seen = cv2.imdecode(coded, cv2.IMREAD_COLOR)
            self._shown = None if seen is None else np.ascontiguousarray(seen[..., ::-1])
        shown = self._shown
        return pixels if shown is None or shown.shape != pixels.shape else shown
