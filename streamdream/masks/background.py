"""What stands in front of a background, learned from the film itself.

Every place has a mean colour and a variance that follow the film slowly: the single Gaussian of
Wren, Azarbayejani, Darrell and Pentland, "Pfinder: real-time tracking of the human body" (1997).
What is many deviations off is in front. Unlike a library's subtractor this one is a value: it can
be kept, and gone on from. It is carried along with the camera, so that a hand may hold that.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import cv2
import numpy as np

from streamdream.frame import Flow, Image, Mask, Planes, Size, interleaved, planes, resize
from streamdream.masks.keys import ramp
from streamdream.motion import warp

USUAL = 10.0  # s in which the background takes on what has changed
STANDING = 60.0  # s, the same where something stands in front of it
YOUNG = 10.0  # s in which what seems to be in front may as well be what was behind
GIVES_WAY = 40 / 255  # levels a second, by which the background then does
LEAST, MOST = 6 / 255, 12 / 255  # deviation that grain and codecs make; who passes by makes more
FIRST = 1 / 25  # s that the first frame counts for
NEAR, FAR = 2.5, 4.5  # deviations: up to NEAR it is the background, from FAR on something else
RIM = 1.5  # px, over which places agree


@dataclass(frozen=True)
class Background:
    """A background: its `mean` (3, h, w), its `variance` (1, h, w), seen for so many `seconds`."""

    mean: Image
    variance: Planes
    seconds: float

    @staticmethod
    def begin(image: Image) -> Background:
        """All there is when a scene starts."""
        return Background(image, image[:1] * 0 + MOST**2, FIRST)

    def resized(self, size: Size) -> Background:
        """The same at another work size (h, w)."""
        mean, variance = resize(self.mean, size), resize(self.variance, size)
        return replace(self, mean=mean, variance=variance.clamp_min(LEAST**2))

    def moved(self, camera: Flow, image: Image) -> Background:
        """Carried along with the camera's flow (2, h, w); what comes in is taken as it is."""
        if not bool(camera.any()):
            return self
        h, w = image.shape[-2:]
        flow = interleaved(camera)
        x = flow[..., 0] + np.arange(w, dtype=np.float32)
        y = flow[..., 1] + np.arange(h, dtype=np.float32)[:, None]
        inside = ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1))[..., None]
        known = planes(inside.astype(np.float32), image.device)
        mean = warp(self.mean, camera, sharp=False) * known + image * (1 - known)
        variance = warp(self.variance, camera, sharp=False) * known + MOST**2 * (1 - known)
        return replace(self, mean=mean, variance=variance)

    def front(self, image: Image) -> Mask:
        """Where (1, h, w) an image shows something in front of it."""
        squares = (image - self.mean).square().mean(0, keepdim=True)
        off = interleaved((squares / self.variance.clamp_min(LEAST**2)).sqrt())[..., 0]
        found = ramp(off, NEAR, FAR).astype(np.float32)
        # Holes within a thing are closed, and single places are grain.
        found = cv2.medianBlur(found, 5)
        found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8))
        found = cv2.GaussianBlur(found, (0, 0), RIM)
        return planes(ramp(np.asarray(found, np.float32), 0.25, 0.65)[..., None], image.device)

    def after(self, image: Image, front: Mask, elapsed: float) -> Background:
        """The background after `elapsed` seconds of an image that shows this in front of it."""
        seconds = self.seconds + elapsed
        usual = max(1 - math.exp(-elapsed / USUAL), elapsed / seconds)
        off = image - self.mean
        if seconds < YOUNG:
            # Towards the median, as McFarlane and Schofield (1995): who stood there when the scene
            # began, and has gone, leaves no ghost, and who passes by hardly a trace.
            most = GIVES_WAY * elapsed
            behind = off.clamp(-most, most)
        else:
            behind = off * (1 - math.exp(-elapsed / STANDING))
        mean = self.mean + off * usual * (1 - front) + behind * front
        squares = off.square().mean(0, keepdim=True)
        # What is in front says nothing about how the background varies.
        variance = self.variance + (squares - self.variance) * usual * (1 - front)
        return Background(mean, variance.clamp(LEAST**2, MOST**2), seconds)
