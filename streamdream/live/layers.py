"""What lies on the camera's picture: a dream is added to it, a painting takes its place.

A layer is an array (h, w, c) of the work size. With three channels it is a change, -1 to 1, that
is added. A fourth one is how much of the picture is covered, 0 to 1; then what is added is a
painting, multiplied by its cover. So a dream is a layer that covers nothing, and one layer fades
into another whatever they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from streamdream.frame import Bytes, Delta, Image, Size, interleaved
from streamdream.live.trail import Trail
from streamdream.motion import Vectors
from streamdream.options import Look
from streamdream.pipeline import Effect
from streamdream.polish.shown import shown
from streamdream.style.colours import cover_of, recoloured

WHOLE = 255  # of 8 bits


@dataclass
class Layer:
    """A layer as it was at one moment: `pixels` (h, w, c), and where it has gone since."""

    pixels: Vectors
    trail: Trail

    def now(self) -> Vectors:
        """The layer where its things are now; nothing where nobody knows."""
        return self.trail.carried(self.pixels)


def layer_of(parts: Iterable[tuple[Effect, Image, Delta]], size: Size, options: Look) -> Vectors:
    """The layer (h, w, c), of `size`, of what effects made, one after another.

    Each part is an effect, the image (3, h, w) that it saw, and what it changed about that. A
    painting has the colours and the mask that the options ask for, and a dream on top of it the
    share; where there is none, a dream is the whole change.
    """
    painted: Vectors | None = None
    change = np.zeros((*size, 3), np.float32)
    cover = cover_of(options, size) if options.style else None
    white = np.ones((*size, 1), np.float32) if cover is None else interleaved(cover)
    for place, (effect, image, delta) in enumerate(parts):
        if not effect.replaces:
            # The first one is shown whole, where the mask is; what is mixed on top has a share.
            share = np.float32(options.dream_mix) if place else white
            strength = options.strength * (options.dream_mix if place else 1.0)
            change += interleaved(shown(image, delta, options, strength)) * share
            continue
        colours = recoloured(image + delta, image, options.style_colours)
        painted = np.concatenate((interleaved(colours).clip(0, 1) * white, white), 2)
    if painted is None:
        return change
    painted[..., :3] += change
    return painted


def resized(layer: Vectors, size: Size) -> Vectors:
    """A layer (h, w, c) at another work size (h, w)."""
    found = cv2.resize(layer, (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(found, np.float32)


def blended(old: Vectors, new: Vectors, part: float) -> Vectors:
    """One layer on its way to another of its size: `part` (0 to 1) of the way is gone."""
    if old.shape[2] != new.shape[2]:
        old, new = _covering(old), _covering(new)
    return np.asarray(cv2.addWeighted(new, part, old, 1 - part, 0), np.float32)


def _covering(layer: Vectors) -> Vectors:
    """A layer with four channels; a change covers nothing."""
    if layer.shape[2] == 4:
        return layer
    return np.dstack((layer, np.zeros(layer.shape[:2], np.float32)))


def laid_on(pixels: Bytes, layer: Vectors, strength: float) -> Bytes:
    """A layer (h, w, c) of the work size on a picture (H, W, 3), both sharp: a quick `composite`.

    In whole levels of 255, which no eye sees and nothing is carried on from. No painting covers
    more than all, so that where there is one a strength above 1 is 1.
    """
    if strength == 0:
        return pixels
    high, wide = pixels.shape[:2]
    if layer.shape[2] == 3:
        change = np.round(layer * np.float32(255 * strength)).astype(np.int16)
        return np.asarray(cv2.add(pixels, _enlarged(change, high, wide), dtype=cv2.CV_8U), np.uint8)
    cover = layer[..., 3:].clip(0, 1)
    share = np.float32(strength) - cover * np.float32(max(0.0, strength - 1))
    change = np.round(layer[..., :3] * (share * WHOLE)).astype(np.int16)
    kept = cv2.convertScaleAbs(1 - cover * np.float32(min(1.0, strength)), alpha=WHOLE)
    if kept.any():
        left = cv2.cvtColor(_enlarged(kept, high, wide), cv2.COLOR_GRAY2RGB)
        pixels = np.asarray(cv2.multiply(pixels, left, scale=1 / WHOLE), np.uint8)
    else:
        pixels = np.zeros_like(pixels)
    return np.asarray(cv2.add(pixels, _enlarged(change, high, wide), dtype=cv2.CV_8U), np.uint8)


def _enlarged(array: np.ndarray, high: int, wide: int) -> np.ndarray:
    if array.shape[:2] == (high, wide):
        return array
    return cv2.resize(array, (wide, high), interpolation=cv2.INTER_CUBIC)
