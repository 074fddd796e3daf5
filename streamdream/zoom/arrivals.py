"""Pictures that the camera falls into: they grow out of the dream and fill it when it is there.

A loop is a movie that arrives at its own first picture; a journey arrives at others on its way.
A picture is moved by the same exact steps as the dream around it, so that nothing slides while
one becomes the other, and it is laid under the dream, not over it: it is dreamed on like all
the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch

from streamdream.frame import Image, Mask, Size, resize
from streamdream.zoom.balance import Tone
from streamdream.zoom.camera import FloatMap, Matrix, growth, mirrored, places, resampled

RIM = 0.45  # of the time, after which a picture begins to show at its rim; 0 in its middle
RAGGED = 0.2  # by how much of it the front is torn, so that no frame is seen
SETTLES = 2.5  # so that a loop's last step is one dreamed step, in change and in strength
SHARPER = 0.5  # share of what the last step loses that is made up for before it
LARGEST = 1.1  # times smaller, up to which a picture is sharp by itself
LATEST = 0.85  # of the time, at which any place begins to show
CELLS = 9  # of the tearing, across a picture


@dataclass(frozen=True)
class Arrival:
    """A picture (3, h, w) that fills the canvas at frame `at`, and begins to show after `begin`."""

    image: Image
    begin: int
    at: int

    @cached_property
    def tone(self) -> Tone:
        """Its light and colour."""
        return Tone.of(self.image)

    def share(self, frame: int) -> float:
        """How much of the canvas is this picture's at a frame, 0 to 1."""
        place = (frame - self.begin) / (self.at - self.begin)
        return float(_risen(np.float64(min(1.0, max(0.0, place)))))

    def laid_under(self, canvas: Image, frame: int, steps: Sequence[Matrix]) -> Image:
        """The canvas (3, h, w) at a frame with the picture in it; steps[i] leads to frame i.

        What was laid under it at the frame before has moved along, so that only the difference
        to then is added.
        """
        if not self.begin < frame < self.at:
            return canvas
        size = canvas.shape[-2], canvas.shape[-1]
        ahead = np.eye(3)
        for matrix in steps[frame + 1 : self.at + 1]:
            ahead = ahead @ matrix
        x, y = places(np.linalg.inv(ahead), size)
        now, before = self._weight(x, y, frame), self._weight(x, y, frame - 1)
        weight = ((now - before) / (1 - before).clamp_min(1e-6)).clamp(0, 1).to(canvas.device)
        seen = self._seen(x, y, growth(ahead))
        if frame + 1 == self.at:  # so that the next step shows the picture, not a softer one
            lost = self.image - resampled(seen, *places(ahead, size))
            seen = seen + SHARPER * self._seen(x, y, 1, lost)
        return canvas + (seen.clamp(0, 1) - canvas) * weight

    def _weight(self, x: FloatMap, y: FloatMap, frame: int) -> Mask:
        """How much is this picture's (1, h, w), at places (h, w) of it.

        Its middle shows first and its rim last, but all is there at the same time: at the end.
        """
        h, w = self.image.shape[-2:]
        place = (frame - self.begin) / (self.at - self.begin)
        out = np.hypot(2 * x / (w - 1) - 1, 2 * y / (h - 1) - 1)  # 1 at the sides' middles
        torn = cv2.remap(self._front, mirrored(x, w), mirrored(y, h), cv2.INTER_LINEAR)
        start = np.clip(RIM * out + torn, 0, LATEST)
        risen = _risen(np.clip((place - start) / (1 - start), 0, 1))
        return torch.from_numpy(risen[None].astype(np.float32))

    @cached_property
    def _front(self) -> FloatMap:
        h, w = self.image.shape[-2:]
        drawn = np.random.default_rng(self.at).uniform(-RAGGED, RAGGED, (CELLS, CELLS))
        return cv2.resize(drawn, (w, h), interpolation=cv2.INTER_CUBIC).astype(np.float32)

    def _seen(self, x: FloatMap, y: FloatMap, smaller: float, image: Image | None = None) -> Image:
        """The picture, or another, at places (h, w) of it, without aliasing where `smaller`."""
        image = self.image if image is None else image
        h, w = image.shape[-2:]
        if smaller > LARGEST:
            size: Size = max(8, round(h / smaller)), max(8, round(w / smaller))
            image = resize(image, size)
            # Pixels have their centres at whole numbers, in both.
            x = ((x + 0.5) * (size[1] / w) - 0.5).astype(np.float32)
            y = ((y + 0.5) * (size[0] / h) - 0.5).astype(np.float32)
        return resampled(image, x, y)


def _risen(place: FloatMap | np.float64) -> FloatMap:
    """From 0 to 1 without a kink at either end."""
    return 1 - (1 - np.asarray(place) ** 2) ** SETTLES
