"""Masks that a picture's own light and colours give: luminance, colour and hue keys.

Their edges are soft, because a hard one would flicker with the grain of the picture.
"""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float

from streamdream.frame import Image, Mask, interleaved, planes
from streamdream.masks.parts import Part

Map = Float[np.ndarray, "h w"]

SOFT = 0.04  # of luminance, over which a key comes up on either side of its limit
SOFT_HUE = 8.0  # degrees, the same
SOFT_COLOUR = 0.25  # of a colour's tolerance, the same
GREY = 0.08, 0.20  # chroma (of 1) that has no hue, and that has one
WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709


def keyed(image: Image, part: Part) -> Mask:
    """Where (1, h, w) an image (3, h, w) has the luminance, colour or hue that a part asks for."""
    found = {"luminance": _luminance, "colour": _colour, "hue": _hue}[part.kind](
        interleaved(image), part
    )
    return planes(found[..., None].astype(np.float32), image.device)


def ramp(values: Map, start: float, end: float) -> Map:
    """0 up to `start`, 1 from `end` on, evenly in between; the other way round if they are."""
    return ((values - np.float32(start)) / np.float32(end - start)).clip(0, 1)


def _luminance(pixels: np.ndarray, part: Part) -> Map:
    low, high = part.numbers
    luma = pixels @ WEIGHTS
    found = np.ones_like(luma)
    if low > 0:
        found *= ramp(luma, low - SOFT, low + SOFT)
    if high < 1:
        found *= ramp(luma, high + SOFT, high - SOFT)
    return found


def _colour(pixels: np.ndarray, part: Part) -> Map:
    """By the colour difference of CIE 1976."""
    goal = np.array(part.colour, np.float32).reshape(1, 1, 3) / np.float32(255)
    lab, wanted = (cv2.cvtColor(p, cv2.COLOR_RGB2Lab) for p in (pixels, goal))
    apart = np.sqrt(np.square(lab - wanted).sum(-1))
    (tolerance,) = part.numbers
    return ramp(apart, tolerance * (1 + SOFT_COLOUR), tolerance * (1 - SOFT_COLOUR))


def _hue(pixels: np.ndarray, part: Part) -> Map:
    """By hue alone, light or dark; what is grey has none."""
    low, high = part.numbers
    half = ((high - low) % 360 or 360) / 2
    hue = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)[..., 0]
    off = np.abs((hue - np.float32(low + half) + 180) % 360 - 180)
    chroma = pixels.max(-1) - pixels.min(-1)
    return ramp(off, half + SOFT_HUE, half - SOFT_HUE) * ramp(chroma, *GREY)
