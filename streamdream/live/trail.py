"""Where the things of one moment are now: movements since then, one after another."""

from __future__ import annotations

import cv2
import numpy as np

from streamdream.frame import Size, interleaved, planes
from streamdream.motion import FloatMap, FlowMap, Movement, Vectors


class Trail:
    """The composed backward flow and trust from now back to one moment.

    Composing flows instead of warping the picture again and again keeps it sharp: whatever is
    carried is resampled once.
    """

    def __init__(self, size: Size) -> None:
        """Begin at this moment, for pictures of `size` (h, w)."""
        self.size = size
        self.flow: FlowMap = np.zeros((*size, 2), np.float32)
        self.trust: FloatMap = np.ones(size, np.float32)
        self.still, self.steps = True, 0
        self._x = np.arange(size[1], dtype=np.float32)
        self._y = np.arange(size[0], dtype=np.float32)[:, None]

    def follow(self, movement: Movement) -> None:
        """Go on by one movement; one over a cut leads nowhere."""
        self.steps += 1
        if movement.cut:
            self.trust = np.zeros(self.size, np.float32)
            return
        step, trust = interleaved(movement.flow), interleaved(movement.trust)[..., 0]
        if self.still:
            self.flow, self.trust, self.still = step, trust * self.trust, False
            return
        x, y = step[..., 0] + self._x, step[..., 1] + self._y
        before = cv2.remap(self.flow, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        was = cv2.remap(self.trust, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        self.flow = np.asarray(step + before, np.float32)
        self.trust = np.asarray(trust * was, np.float32)

    def resized(self, size: Size) -> Trail:
        """The same for pictures of another size (h, w)."""
        other = Trail(size)
        wide, high = size[1], size[0]
        scale = np.array([wide / self.size[1], high / self.size[0]], np.float32)
        flow = cv2.resize(self.flow, (wide, high), interpolation=cv2.INTER_LINEAR)
        other.flow = np.asarray(flow * scale, np.float32)
        trust = cv2.resize(self.trust, (wide, high), interpolation=cv2.INTER_LINEAR)
        other.trust, other.still = np.asarray(trust, np.float32), self.still
        other.steps = self.steps
        return other

    @property
    def movement(self) -> Movement:
        """All of it as one, from now back to that moment."""
        return Movement(planes(self.flow), planes(self.trust[..., None]))

    def carried(self, layer: Vectors) -> Vectors:
        """A layer (h, w, c) of that moment where its things are now, 0 where nobody knows.

        Bicubic, and with the benefit of the doubt where trust was lost bit by bit: this is only
        looked at, and never carried on.
        """
        if self.still:
            return layer * self._shown_trust()[..., None]
        x, y = self.flow[..., 0] + self._x, self.flow[..., 1] + self._y
        moved = cv2.remap(layer, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(moved, np.float32) * self._shown_trust()[..., None]

    def _shown_trust(self) -> FloatMap:
        return np.sqrt(np.sqrt(self.trust))
